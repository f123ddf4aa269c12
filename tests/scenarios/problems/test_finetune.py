"""The scenario finetune: F and accuracy, with x as a vector and in place."""

import pytest
import torch

from fedzo.errors import ConfigError
from fedzo.objectives.cohort import cohort_gradient
from scenarios import make_experiment, simulate
from scenarios.problems.finetune import FinetuneConfig, FinetuneScenario

CNN = {"scenario.task": "digits_cnn", "scenario.examples": 300}


def scenario(**config: object) -> FinetuneScenario:
    settings = FinetuneConfig(task="digits_cnn", examples=300, **config)  # type: ignore[arg-type]
    return FinetuneScenario(settings, num_clients=5, seed=0)


def test_f_is_the_mean_of_the_clients() -> None:
    world = scenario()
    x = world.problem(0).initial_x
    values = world.cohort(range(5), 0).value(x.expand(5, 1, -1))
    report = world.problem(0).report(x, None)
    assert float(values.mean()) == pytest.approx(report.value, rel=1e-5)
    assert report.metrics["test_accuracy"] == world.task.accuracy()
    assert len(cohort_gradient(world.cohort([3], 0), x.unsqueeze(0))[0]) == 610


def test_clients_may_have_a_class_each() -> None:
    world = FinetuneScenario(
        FinetuneConfig(task="digits_cnn", partition="by_label"), num_clients=10, seed=0
    )
    for objective in world.cohort(range(10), 0).objectives:  # type: ignore[attr-defined]
        assert len(objective.targets.unique()) == 1


@pytest.mark.more
@pytest.mark.parametrize(
    "strategy", ["fedavg", "fedzo", "seedzo", "mezo", "fedamd", "scaffold_exact", "dp_zo"]
)
def test_strategies_adapt_it_and_say_the_accuracy(strategy: str) -> None:
    made = make_experiment("finetune", strategy, num_rounds=4, num_clients=4, settings=CNN)
    result = simulate(made)
    assert len(result.records) == 5
    assert all(0 <= record.metrics["test_accuracy"] <= 1 for record in result.records)
    assert result.final_value != result.records[0].value


@pytest.mark.parametrize("strict", [False, True])
def test_in_place_the_module_that_is_judged_is_the_one_that_moved(strict: bool) -> None:
    settings = {**CNN, "strategy.server_lr": 0.01, "engine.strict": strict}
    made = make_experiment("finetune", "mezo", num_rounds=6, num_clients=3, settings=settings)
    result = simulate(made)
    world = FinetuneScenario(made.config("scenario"), num_clients=3, seed=0)
    start = world.task.evaluate(world.task.test)
    assert result.records[0].metrics["test_loss"] == pytest.approx(start.loss)
    result.replay_(world.task.module)
    end = world.task.evaluate(world.task.test)
    assert result.records[-1].metrics["test_loss"] == pytest.approx(end.loss)
    assert end.loss != start.loss
    values = world.cohort(range(3), 0)
    x = world.problem(0).initial_x
    assert result.final_value == pytest.approx(float(values.value(x.expand(3, 1, -1)).mean()))
    assert result.queries == 6 * 3 * 2, "judging has cost no query"


def test_wrong_settings_are_said() -> None:
    with pytest.raises(ConfigError, match="layers=-2"):
        FinetuneConfig(layers=-2)
    with pytest.raises(ConfigError, match="exceeds the 1 layers of digits_cnn"):
        scenario(layers=2)
    with pytest.raises(ConfigError, match="data_dir"):
        make_experiment("finetune", "fedzo", settings={"scenario.data_dir": "x"})


@pytest.mark.slow
def test_fedavg_adapts_the_mlp_that_was_trained_before() -> None:
    settings = {"strategy.local_lr": 0.1, "strategy.evaluate_every": 0}
    made = make_experiment("finetune", "fedavg", num_rounds=60, num_clients=10, settings=settings)
    result = simulate(made)
    assert result.metrics["test_accuracy"] > result.records[0].metrics["test_accuracy"] + 0.3
    assert torch.isfinite(result.x).all()

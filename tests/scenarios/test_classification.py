"""Federated training of small networks: it learns, on skewed shards, with either model."""

import pytest
import torch

from fedzo.cohort import cohort_gradient
from scenarios import make_experiment, simulate
from scenarios.classification import ClassificationConfig, ClassificationScenario


def scenario(**config: object) -> ClassificationScenario:
    settings = ClassificationConfig(dataset="digits", **config)  # type: ignore[arg-type]
    return ClassificationScenario(settings, num_clients=5, seed=0)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_f_is_the_mean_of_the_clients(model: str) -> None:
    world = scenario(model=model)
    x = world.problem(0).initial_x
    values = world.cohort(range(5), 0).value(x.expand(5, 1, -1))
    report = world.problem(0).report(x, None)
    assert float(values.detach().mean()) == pytest.approx(report.value, rel=1e-5)
    assert 0.0 <= report.metrics["test_accuracy"] <= 0.4


def test_the_stacked_gradient_is_the_mean_of_minibatch_gradients() -> None:
    world = scenario(partition="iid", hidden=7)
    cohort = world.cohort([2], 0)
    x = world.problem(0).initial_x.unsqueeze(0)
    size = cohort.sizes[0]
    halves = torch.arange(size - size % 2).reshape(2, 1, -1)
    parts = [cohort_gradient(cohort.minibatch(half), x) for half in halves]
    whole = cohort_gradient(cohort.minibatch(halves.flatten().unsqueeze(0)), x)
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("model", "target"), [("mlp", 0.7), ("cnn", 0.75)])
def test_fedavg_learns_digits_from_two_classes_a_client(model: str, target: float) -> None:
    experiment = make_experiment(
        "classification",
        "fedavg",
        num_clients=10,
        num_rounds=40,
        settings={
            "scenario.dataset": "digits",
            "scenario.model": model,
            "strategy.participation": 0.5,
            "strategy.local_lr": 0.2,
            "strategy.evaluate_every": 0,
        },
    )
    result = simulate(experiment)
    assert result.metrics["test_accuracy"] > target
    assert result.queries == 0
    assert result.summary()["gradients"] == 40 * 5 * 10


def test_zeroth_order_clients_can_train_it_too() -> None:
    experiment = make_experiment(
        "classification",
        "fedzo",
        num_clients=5,
        num_rounds=30,
        settings={
            "scenario.dataset": "digits",
            "scenario.hidden": 8,
            "scenario.partition": "iid",
            "strategy.local_lr": 0.01,
            "strategy.evaluate_every": 0,
        },
    )
    result = simulate(experiment)
    assert result.initial_value is not None
    assert result.final_value is not None
    assert result.final_value < 0.8 * result.initial_value

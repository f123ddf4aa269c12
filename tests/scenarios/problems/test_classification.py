"""Federated training of small networks: it learns, on skewed shards, with either model."""

import pytest
import torch

from fedzo.errors import ConfigError
from fedzo.objectives.cohort import cohort_gradient
from fedzo.objectives.oracle import Oracle
from scenarios import make_experiment, simulate
from scenarios.data.networks import make_lenet
from scenarios.problems.classification import ClassificationConfig, ClassificationScenario


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


@pytest.mark.slow
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
        num_rounds=15,
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


@pytest.mark.more
def test_lenet_has_the_parameters_of_lenet_and_learns() -> None:
    network = make_lenet(28, 10)
    assert sum(p.numel() for p in network.parameters()) == 44_426
    experiment = make_experiment(
        "classification",
        "fedavg",
        num_clients=4,
        num_rounds=5,
        settings={
            "scenario.model": "lenet",
            "scenario.partition": "iid",
            "scenario.max_examples": 400,
            "scenario.normalize": True,
            "strategy.local_lr": 0.1,
            "strategy.evaluate_every": 0,
        },
    )
    assert simulate(experiment).metrics["test_accuracy"] > 0.5


def test_lenet_needs_room_for_its_windows() -> None:
    with pytest.raises(ConfigError, match="needs images of 16x16 or more, not 8x8; use cnn"):
        scenario(model="lenet")


def test_some_examples_are_drawn_for_the_seed_and_normalized() -> None:
    few = scenario(max_examples=300, normalize=True)
    sizes = few.cohort(range(5), 0).sizes
    assert int(sizes.sum()) == 300
    pixels = few.cohort(range(5), 0).inputs
    assert float(pixels.mean()) == pytest.approx(0, abs=0.05)
    again = scenario(max_examples=300, normalize=True)
    assert torch.equal(again.cohort(range(5), 0).inputs, pixels)
    with pytest.raises(ConfigError, match="max_examples=-1 must be 0"):
        ClassificationConfig(max_examples=-1)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_reported_gradient_is_that_of_f(model: str) -> None:
    world = scenario(model=model, report_gradient=True)
    x = world.problem(0).initial_x
    gradients = cohort_gradient(world.cohort(range(5), 0), x.expand(5, -1))
    expected = float(gradients.mean(dim=0).square().sum())
    reported = world.problem(0).report(x, None).metrics["gradient_norm_sq"]
    assert reported == pytest.approx(expected, rel=1e-4)
    assert "gradient_norm_sq" not in scenario(model=model).problem(0).report(x, None).metrics


def test_shards_of_equal_size_are_one_program_with_the_same_values() -> None:
    world = scenario(partition="iid", max_examples=100)
    cohort = world.cohort(range(5), 0)
    x = world.problem(0).initial_x.expand(5, 2, -1)
    alone = torch.cat([world.cohort([i], 0).value(x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(cohort.value(x), alone, rtol=1e-5, atol=1e-6)


def test_examples_are_counted_by_every_kind_of_question() -> None:
    world = scenario(max_examples=150, partition="iid")
    cohort, x = world.cohort([0, 3], 0), world.problem(0).initial_x.expand(2, -1)
    oracle = Oracle(cohort)
    oracle.value(x.unsqueeze(1).expand(2, 4, -1))
    assert oracle.counts()["examples"] == [120, 120]
    oracle.gradient(x)
    batch = torch.arange(7).expand(2, -1)
    oracle.gradient(x, of=cohort.minibatch(batch))
    assert oracle.counts()["examples"] == [157, 157]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_examples_of_a_run_are_steps_times_batches(model: str) -> None:
    settings = {"scenario.dataset": "digits", "scenario.model": model, "client.batch_size": 8}
    experiment = make_experiment(
        "classification", "fedavg", num_clients=5, num_rounds=2, settings=settings
    )
    result = simulate(experiment)
    assert result.summary()["examples"] == 2 * 5 * 10 * 8
    assert result.records[-1].axis("examples") == 800

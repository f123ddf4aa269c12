"""Losses of records that do not average to the objective are refused, before any is released."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.app import build_client_app
from fedzo.errors import ConfigError, FedzoWarning, RunError
from fedzo.objectives.cohort import cohort_of
from fedzo.objectives.objective import FiniteSum, ModuleObjective
from fedzo.objectives.oracle import Oracle
from fedzo.privacy.averages import QUERIES, points_beside, require_averages
from fedzo.privacy.counted import compare_records
from fedzo.randomness import stream
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from scenarios import federate
from scenarios.problems.custom import CustomScenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

CLASSES, RECORDS = 3, 20
WEIGHTS = torch.tensor([10.0, 1.0, 0.1])
Loss = Callable[[Tensor, Tensor], Tensor]


def data(key: int = 0, records: int = RECORDS) -> tuple[Tensor, Tensor]:
    random = stream(key, "averages")
    inputs = torch.from_numpy(random.standard_normal((records, 5))).float()
    return inputs, torch.from_numpy(random.integers(0, CLASSES, records))


def network(*more: nn.Module) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, CLASSES), *more)
    for number, parameter in enumerate(net.parameters()):
        random = stream(number, "network")
        parameter.data = 0.5 * torch.from_numpy(random.standard_normal(parameter.shape)).float()
    return net


def compared(*objectives: FiniteSum, x: Tensor | None = None) -> None:
    start = getattr(objectives[0], "initial_x", None) if x is None else x
    require_averages(
        cohort_of(objectives),
        points_beside(start.expand(len(objectives), -1)),  # type: ignore[union-attr]
    )


def weighted(o: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(o, y, weight=WEIGHTS)


def summed(o: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(o, y, reduction="sum")


def ignoring(o: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(o, y, ignore_index=1)


def root(o: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(o[:, 0], y.float()).sqrt()


def pairs(o: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(o - o.mean(dim=0), y)


def smoothed(o: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(o, y, label_smoothing=0.1)


def own_weights(o: Tensor, y: Tensor) -> Tensor:
    return (WEIGHTS[y] * functional.cross_entropy(o, y, reduction="none")).mean()


def nothing(o: Tensor, y: Tensor) -> Tensor:
    return 0 * o.mean()


class Mixing(nn.Module):
    """A layer that compares records."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + x.square().mean(dim=0))


@pytest.mark.parametrize("loss", [weighted, summed, ignoring, root, pairs])
@pytest.mark.parametrize("zeros", [False, True], ids=["random start", "zeros"])
def test_losses_that_do_not_average_are_refused(loss: Loss, zeros: bool) -> None:
    """Class weights agree where all outputs of a network are equal, so they are compared beside."""
    own = ModuleObjective(network(), loss, *data())
    with pytest.raises(ConfigError, match=r"class weights.*\((they are \d+% apart|some are not)"):
        compared(own, x=0 * own.initial_x if zeros else None)  # type: ignore[operator]


def test_modules_that_compare_records_are_refused() -> None:
    with pytest.raises(ConfigError, match="compares records"):
        compared(ModuleObjective(network(Mixing()), functional.cross_entropy, *data()))


@pytest.mark.parametrize("loss", [functional.cross_entropy, smoothed, own_weights, nothing])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_means_over_records_pass(loss: Loss, dtype: torch.dtype) -> None:
    inputs, labels = data(records=300)
    net = network(nn.BatchNorm1d(CLASSES), nn.Dropout(0.5))
    compared(ModuleObjective(net.to(dtype), loss, inputs.to(dtype), labels))


def test_one_record_zero_records_and_large_losses_pass() -> None:
    inputs, labels = data()
    compared(ModuleObjective(network(), weighted, inputs[:1], labels[:1]))
    compared(ModuleObjective(network(), functional.cross_entropy, 1e6 * inputs, labels))
    own = ModuleObjective(network(), functional.cross_entropy, inputs, labels)
    compared(own, x=1e30 * own.initial_x)  # type: ignore[operator]


def test_broken_records_neither_hide_a_wrong_loss_nor_make_a_right_one_wrong() -> None:
    inputs, labels = data()
    inputs[3] = torch.nan
    compared(ModuleObjective(network(), functional.cross_entropy, inputs, labels))
    for loss in (weighted, summed, ignoring):
        with pytest.raises(ConfigError, match="do not average"):
            compared(ModuleObjective(network(), loss, inputs, labels))


class Own:
    """An objective over records that knows nothing of privacy."""

    lower, upper = -math.inf, math.inf

    def __init__(self, rows: Tensor, total: bool) -> None:
        self._rows, self._total = rows, total
        self.dim, self.num_examples = rows.shape[1], len(rows)

    def minibatch(self, indices: Tensor) -> "Own":
        return Own(self._rows[indices], self._total)

    def value(self, x: Tensor) -> Tensor:
        squares = (x.unsqueeze(-2) - self._rows).square().sum(-1)
        return squares.sum(-1) if self._total else squares.mean(-1)


class OwnLosses(Own):
    """Whose record losses are another function than its value."""

    def record_loss(self, x: Tensor, index: Tensor) -> Tensor:
        return 2 * (x - self._rows[index]).square().sum()

    def record_losses(self, x: Tensor) -> Tensor:
        return 2 * (x.unsqueeze(-2) - self._rows).square().sum(-1)


@pytest.mark.parametrize("records", [7, 5000], ids=["all", "a part"])
def test_objectives_of_ones_own_are_compared_too(records: int) -> None:
    rows, x = data(records=records)[0], torch.ones(5)
    compared(Own(rows, total=False), x=x)
    for wrong in (Own(rows[:40], total=True), OwnLosses(rows, total=False)):
        with pytest.raises(ConfigError, match="do not average"):
            compared(wrong, x=x)


def test_it_costs_queries_that_are_counted_and_a_client_that_raises_is_left_to_the_round() -> None:
    class Raises(Own):
        def value(self, x: Tensor) -> Tensor:
            raise ValueError("no disk")

    rows = data()[0]
    oracle = Oracle(cohort_of([Own(rows, total=False), Raises(rows, total=False)]))
    compare_records(oracle, torch.ones(2, 5))
    assert oracle.counts()["queries"] == [QUERIES, QUERIES]
    assert oracle.failures == {}
    poor = Oracle(cohort_of([Own(rows, total=False)]), query_budget=QUERIES - 1)
    with pytest.raises(RunError, match="raise query_budget"):
        compare_records(poor, torch.ones(1, 5))


FREE: dict[str, Any] = {"strategy.epsilon": math.inf}
PRIVATE: list[tuple[str, dict[str, Any]]] = [
    ("dp_gd", {}),
    ("diff2", {}),
    ("diff2", {"strategy.memory": "filter"}),
    ("diff2", {"strategy.routine": "bvr_l_sgd", "strategy.local_batch": 5}),
    ("dp_zo", {"client.num_directions": 2}),
    ("diff2_zo", {"client.num_directions": 2}),
]


@pytest.mark.parametrize(("strategy", "more"), PRIVATE)
def test_every_strategy_with_records_refuses_before_it_releases(
    strategy: str, more: dict[str, Any]
) -> None:
    def run(loss: Loss) -> Any:
        return federate(
            lambda client: ModuleObjective(network(), loss, *data(client)),
            num_clients=2,
            strategy=strategy,
            num_rounds=1,
            settings={**FREE, **more},
        )

    with pytest.raises(ConfigError, match="do not average"):
        run(weighted)
    assert run(own_weights).records[-1].round_index == 1


def test_over_the_wire_it_is_refused_as_well_and_nobody_is_told_by_how_much() -> None:
    def make(client: int) -> ModuleObjective:
        return ModuleObjective(network(), weighted, *data(client))

    experiment = make_experiment(
        "custom", "dp_gd", engine="superlink", num_clients=2, num_rounds=1, settings=FREE
    )
    scenario = CustomScenario(
        experiment.config("scenario"), num_clients=2, seed=0, make_objective=make
    )
    grid = InProcessGrid(build_client_app(make), num_clients=2)
    with pytest.warns(FedzoWarning, match="% apart"), pytest.raises(ConfigError) as found:
        simulate(experiment, scenario=scenario, grid=grid)
    assert "class weights" in str(found.value)
    assert "%" not in str(found.value)

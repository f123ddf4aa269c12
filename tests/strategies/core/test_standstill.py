"""Who is told that x stands still, and who is not; in which arithmetic x moves."""

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedzo.errors import ConfigError, FedzoWarning
from fedzo.objectives.objective import CallableObjective, TorchObjective
from fedzo.records.history import RoundRecord
from scenarios import federate
from scenarios.runs.simulate import RunResult
from strategies.core.outcome import Snapshot
from strategies.core.standstill import Standstill


def run(function: Any, *, torch_function: bool = False, **more: Any) -> tuple[RunResult, list[str]]:
    """Return the result and what was said."""
    kind: Any = TorchObjective if torch_function else CallableObjective
    settings = {"num_clients": 1, "num_rounds": 4, **more}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = federate(lambda client: kind(function=function, dim=3), **settings)
    return result, [str(w.message) for w in said if issubclass(w.category, FedzoWarning)]


def bowl(scale: float, center: float = 1.0) -> Any:
    return lambda x: scale * float(((x - center) ** 2).sum())


@pytest.mark.parametrize("scale", [1e-14, 1e-12, 1e-10])
def test_tiny_units_are_told_once(scale: float) -> None:
    _, said = run(bowl(scale), num_rounds=15)
    [text] = said
    assert "the objective's units too small" in text
    assert "multiply the objective by a constant" in text


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_runs_that_get_on_are_not_bothered(scale: float) -> None:
    result, said = run(bowl(scale))
    assert not said
    assert result.final_value is not None
    assert result.initial_value is not None
    assert result.final_value < 0.95 * result.initial_value


def test_huge_units_end_in_a_sentence() -> None:
    result, said = run(bowl(1e200))
    assert result.x.tolist() == [0.0, 0.0, 0.0]
    assert "squares of its slopes overflow; divide the objective" in said[0]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("fedzo", {"client.optimizer": "sgd", "strategy.local_lr": 1e-9}),
        ("seedzo", {}),
        ("fedavg", {}),
    ],
)
def test_every_method_of_steps_is_watched(strategy: str, settings: dict[str, Any]) -> None:
    first = strategy == "fedavg"
    value: Any = (lambda x: 1e-12 * (x - 1).square().sum(-1)) if first else bowl(1e-12)
    _, said = run(value, torch_function=first, strategy=strategy, settings=settings)
    assert len(said) == 1


def test_a_flat_objective_is_told_and_one_at_its_minimum_too() -> None:
    _, said = run(lambda x: 3.0)
    assert "x has not moved in 3 rounds (F starts at 3): client.mu=0.01 too small" in said[0]
    assert "unless x is a minimum" in said[0]
    _, said = run(lambda x: 3.0, num_rounds=0)
    assert not said


def test_mu_below_the_resolution_of_x_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"mu=1e-17 is too small for x in float64.* at least 3.1e"
    ):
        run(bowl(1.0, 2), initial_x=torch.ones(3).double(), settings={"client.mu": 1e-17})


@pytest.mark.parametrize("strategy", ["seedzo", "fedzen"])
def test_probes_below_the_resolution_of_x_are_refused(strategy: str) -> None:
    with pytest.raises(ConfigError, match="is too small for x in float64"):
        run(
            bowl(1.0, 2),
            strategy=strategy,
            initial_x=np.full(3, 1e3),
            settings={"client.mu": 1e-15},
        )


def test_a_float32_start_far_from_zero_runs_in_float64_and_says_so() -> None:
    start = torch.tensor([1e6 - 1, 0.0, 0.0])
    result, said = run(bowl(1.0, 1e6), initial_x=start, num_rounds=2)
    assert result.x.dtype == torch.float64
    assert "float32 cannot tell x + mu u from x at client.mu=0.01" in said[0]
    assert result.x[0] != start[0]
    result, said = run(bowl(1.0), initial_x=torch.zeros(3))
    assert (result.x.dtype, said) == (torch.float32, [])


def test_differences_are_float64_whatever_the_type_of_x() -> None:
    """An offset of 1e8 leaves a float32 value nothing of the bowl."""
    result, said = run(lambda x: 1e8 + float(((x - 1) ** 2).sum()), initial_x=torch.zeros(3))
    assert result.final_value is not None
    assert result.final_value - 1e8 < 2.9
    assert (result.x.dtype, said) == (torch.float32, [])


def test_a_run_that_came_back_after_it_had_gone_far_is_not_bothered() -> None:
    watch = Standstill(num_rounds=3, mu=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index, (place, value) in enumerate([(0.0, 1.0), (0.5, 0.4), (0.3, 0.5), (0.001, 0.99)]):
            record = RoundRecord(round_index=index, value=value, clients=(0,), queries=index)
            watch(Snapshot(record, SimpleNamespace(x=torch.tensor([place])), None, True, 0))

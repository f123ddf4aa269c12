"""Shared-seed Square: its proposals, its counts, and that F never rises."""

import math
from itertools import pairwise

import pytest
import torch

from clients import make_rules
from fedzo.errors import ConfigError
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from strategies.core.driver import Outcome, RunSettings, run_rounds
from strategies.search.square import Square, SquareConfig

SIDE, N = 8, 3
D = SIDE * SIDE


def make(client: int) -> TorchObjective:
    target = torch.linspace(0, 1, D, dtype=torch.float64).roll(client)
    return TorchObjective(
        function=lambda x: (x - target).abs().sum(-1), dim=D, lower=0.0, upper=1.0
    )


def go(rounds: int, **config: object) -> Outcome:
    engine = InProcessEngine(FunctionEnvironment(make), make_rules())
    problem = OpenProblem(initial_x=torch.full((D,), 0.5).double(), lower=0.0, upper=1.0)
    settings = RunSettings(num_clients=N, num_rounds=rounds)
    return run_rounds(Square(SquareConfig(**config)), engine, problem, settings)  # type: ignore[arg-type]


def test_stripes_first_then_squares_that_lower_f() -> None:
    outcome = go(60)
    values = [record.value for record in outcome.records]
    assert all(b <= a for a, b in pairwise(values[1:]))  # type: ignore[operator]
    assert values[-1] < values[1]  # type: ignore[operator]
    x = go(1).state.x.reshape(SIDE, SIDE)
    assert torch.equal(x, x[:1].expand(SIDE, SIDE))
    assert set(x.unique().tolist()) <= {0.0, 1.0}


def test_one_query_a_client_and_round_and_none_to_judge() -> None:
    records = go(10).records
    assert [r.queries for r in records] == [N * (r.round_index + 1) for r in records]
    assert [r.judges for r in records] == [N] * 11


def test_a_change_is_one_square() -> None:
    before, after = go(1).state.x, go(2).state.x
    changed = (before != after).reshape(SIDE, SIDE).nonzero()
    if len(changed):
        height, width = (changed.max(0).values - changed.min(0).values + 1).tolist()
        assert max(height, width) <= math.ceil(math.sqrt(0.1) * SIDE)


def test_an_unbounded_box_is_refused() -> None:
    engine = InProcessEngine(FunctionEnvironment(make), make_rules())
    problem = OpenProblem(initial_x=torch.zeros(D).double())
    with pytest.raises(ConfigError, match=r"needs a bounded box, got \[-inf, inf\]"):
        run_rounds(
            Square(SquareConfig()), engine, problem, RunSettings(num_clients=3, num_rounds=1)
        )


def test_a_vector_that_is_no_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dim=10 must be a square number"):
        Square(SquareConfig()).init(torch.zeros(10), 3)

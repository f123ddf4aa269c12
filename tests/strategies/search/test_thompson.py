"""Federated Thompson sampling: its counts, that F never rises, and that it learns."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from clients import make_rules
from fedzo.errors import ConfigError
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from strategies.core.driver import Outcome, RunSettings, run_rounds
from strategies.search.square import Square, SquareConfig
from strategies.search.thompson import FederatedThompson, FederatedThompsonConfig

SIDE, N = 12, 3
D = SIDE * SIDE


def slope(client: int) -> Tensor:
    """Blobs that clients share, and noise of their own that cancels."""
    place = torch.arange(SIDE).double() / 3
    blobs = (place.sin().unsqueeze(1) * place.cos()).flatten()
    own = torch.linspace(-1, 1, D, dtype=torch.float64).roll(7 * client)
    return blobs + 0.2 * (own - sum(own.roll(7 * k) for k in range(N)) / N)


def make(client: int) -> TorchObjective:
    weights = slope(client)
    return TorchObjective(function=lambda x: (x - 0.5) @ weights, dim=D, lower=0.0, upper=1.0)


def make_with_a_liar(client: int) -> TorchObjective:
    """Client 0 says five times the opposite."""
    weights = slope(client) * (1 if client else -5)
    return TorchObjective(function=lambda x: (x - 0.5) @ weights, dim=D, lower=0.0, upper=1.0)


def go(
    rounds: int, *, square: bool = False, seed: int = 0, liar: bool = False, **config: object
) -> Outcome:
    environment = FunctionEnvironment(make_with_a_liar if liar else make)
    engine = InProcessEngine(environment, make_rules())
    problem = OpenProblem(initial_x=torch.full((D,), 0.5).double(), lower=0.0, upper=1.0)
    settings = RunSettings(num_clients=N, num_rounds=rounds, seed=seed)
    strategy = (
        Square(SquareConfig(horizon=rounds, **config))  # type: ignore[arg-type]
        if square
        else FederatedThompson(FederatedThompsonConfig(**config))  # type: ignore[arg-type]
    )
    return run_rounds(strategy, engine, problem, settings)


def test_the_first_proposal_is_a_corner_and_f_never_rises() -> None:
    outcome = go(40)
    values = [record.value for record in outcome.records]
    assert all(b <= a for a, b in pairwise(values))  # type: ignore[operator]
    assert set(outcome.state.x.unique().tolist()) <= {0.0, 1.0}


def test_one_query_a_client_and_round_and_two_at_the_start() -> None:
    """The driver judges the start, and the strategy, which is not told, asks there again."""
    records = go(10).records
    assert [r.queries for r in records[1:]] == [N * (r.round_index + 2) for r in records[1:]]


def test_a_linear_function_of_blobs_is_learned_faster_than_by_squares() -> None:
    best = float(sum(slope(k) for k in range(N)).abs().sum() / N / -2)
    shares = [
        [go(60, square=square, seed=seed).records[-1].value / best for seed in range(2)]
        for square in (False, True)
    ]
    assert min(shares[0]) > 0.9
    assert min(shares[0]) > max(shares[1])


@pytest.mark.parametrize("square", [False, True])
def test_a_robust_rule_withstands_a_liar_and_the_mean_does_not(square: bool) -> None:
    honest = (slope(1) + slope(2)) / 2
    least = -float(honest.abs().sum()) / 2
    robust = go(80, square=square, liar=True, aggregator="median", num_byzantine=1)
    assert float((robust.state.x - 0.5) @ honest) < (0.1 if square else 0.5) * least
    assert float((go(80, square=square, liar=True).state.x - 0.5) @ honest) > 0
    with pytest.raises(ConfigError, match="num_byzantine"):
        go(1, square=square, num_byzantine=1)


def test_same_seed_same_run_other_seed_another() -> None:
    one, same, other = go(15), go(15), go(15, seed=1)
    assert torch.equal(one.state.x, same.state.x)
    assert not torch.equal(one.state.x, other.state.x)


def test_a_changing_cohort_is_asked_at_both_points() -> None:
    records = go(8, participation=0.34).records
    per_round = [b.queries - a.queries for a, b in pairwise(records)]
    assert set(per_round[1:]) <= {1 + N, 2 + N, 1, 2}
    assert records[-1].value <= records[0].value  # type: ignore[operator]


def test_settings_out_of_range_and_unbounded_boxes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"spread=-1 must be 0 or more"):
        FederatedThompsonConfig(spread=-1)
    engine = InProcessEngine(FunctionEnvironment(make), make_rules())
    problem = OpenProblem(initial_x=torch.zeros(D).double())
    strategy = FederatedThompson(FederatedThompsonConfig())
    with pytest.raises(ConfigError, match=r"strategy thompson needs a bounded box"):
        run_rounds(strategy, engine, problem, RunSettings(num_clients=N, num_rounds=1))

"""FZooS that does not wait: late answers are exact observations, and it is sooner there."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fedzo
from fedzo.errors import ConfigError
from fedzo.objectives.objective import CallableObjective
from fedzo.surrogates.slopes import SlopeRows
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from strategies.core.outcome import Snapshot
from strategies.surrogate.fzoos_asynchronous import KEPT
from strategies.surrogate.fzoos_state import AsynchronousState

D, N = 24, 12
SLOW = {"fleet.preset": "mobile", "fleet.query_s": 0.05, "fleet.speed_spread": 1.0}
"""Phones of which some take ten times as long as others, so that answers are old."""


def f(client: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a client's quadratic: slopes between two points are derivatives in the middle."""
    drawn = np.random.default_rng(client)
    scale, middle = 0.5 + drawn.random(D), drawn.normal(size=D)
    return lambda x: np.asarray((scale * (x - middle) ** 2).sum(-1))


def bowl(client: int) -> CallableObjective:
    return CallableObjective(function=f(client), dim=D)


def states_of(rounds: int = 15, **settings: Any) -> list[AsynchronousState]:
    """Return the state after every round of a small federation."""
    states: list[AsynchronousState] = []

    def keep(snapshot: Snapshot) -> None:
        states.append(snapshot.state)

    fedzo.federate(
        bowl,
        initial_x=torch.zeros(D, dtype=torch.float64),
        num_clients=N,
        num_rounds=rounds,
        strategy="fzoos_async",
        settings={"strategy.participation": 0.5, **SLOW, **settings},
        callbacks=[keep],
    )
    return states


def true_slopes(rows: SlopeRows) -> Tensor:
    """Return what the rows' owners would say, averaged, of the same two points."""
    half = rows.direction * rows.length.unsqueeze(1) / 2
    told = []
    for i, owners in enumerate(rows.owners.tolist()):
        ends = torch.stack([rows.midpoint[i] - half[i], rows.midpoint[i] + half[i]]).numpy()
        values = np.mean([f(client)(ends) for client in owners if client >= 0], axis=0)
        told.append((values[1] - values[0]) / float(rows.length[i]))
    return torch.tensor(told)


@pytest.mark.more
@pytest.mark.parametrize("design", ["shared", "private", "auto"])
def test_every_row_is_what_its_owners_answered_where_they_were_asked(design: str) -> None:
    state = states_of(**{"strategy.design": design})[-1]
    assert len(state.rows) > 100
    torch.testing.assert_close(state.rows.slope, true_slopes(state.rows), rtol=0, atol=2e-3)
    alone = (state.rows.owners >= 0).sum(1) == 1
    assert bool(alone.all()) == (design == "private")


def test_answers_are_late_and_clients_are_compared_with_themselves() -> None:
    """Rows between two points of the server's own path exist, of one client each."""
    state = states_of(**{"strategy.buffer": 2})[-1]
    points = 1 + 10 * N
    between = (state.rows.start % points == 0) & (state.rows.end % points == 0)
    apart = (state.rows.end - state.rows.start)[between] // points
    assert int(between.sum()) > 10
    assert int(apart.max()) > 3
    assert bool(((state.rows.owners[between] >= 0).sum(1) == 1).all())


def test_noise_of_a_point_is_shared_by_the_rows_that_end_there() -> None:
    rows = states_of(**{"strategy.design": "private", "strategy.max_rows": 1000})[-1].rows
    probes = rows.end % (1 + 10 * N) != 0
    assert int(probes.sum()) > 100
    assert len(rows.end[probes].unique()) == int(probes.sum())
    same = rows.start[probes].unsqueeze(1) == rows.start[probes]
    assert bool((same.sum(1) >= 10).all())


def test_answers_to_spoilt_rounds_are_left_out() -> None:
    """Nobody has kept which directions these had; the rows of others are as they were answered."""
    faults = {"fleet.drop_out": 0.8, "strategy.timeout_s": 20.0, "strategy.max_failed_rounds": 10}
    states = states_of(rounds=40, **{"strategy.buffer": 1, **faults})
    rounds = {int(r) for state in states for r in state.rounds}
    assert rounds < set(range(1, 41))  # some were spoilt
    rows = states[-1].rows
    torch.testing.assert_close(rows.slope, true_slopes(rows), rtol=0, atol=2e-3)


def test_many_clients_do_not_crowd_out_what_they_probed() -> None:
    crowd = {"strategy.participation": 1.0, "strategy.max_rows": 24, "strategy.design": "shared"}
    rows = states_of(**crowd)[-1].rows
    between = (rows.start % (1 + 10 * N) == 0) & (rows.end % (1 + 10 * N) == 0)
    assert len(rows) == 24
    assert 0 < int(between.sum()) <= 12


def test_points_are_forgotten_that_nobody_works_on() -> None:
    longer = states_of(rounds=KEPT + 30, **{"strategy.num_directions": 3, "strategy.max_rows": 60})
    assert all(len(state.kept) == len(state.rounds) == len(state.private) for state in longer)
    assert len(longer[-1].kept) < KEPT + 25
    assert len(longer[-1].rows) == 60
    assert longer[-1].clients.tolist() == sorted(set(longer[-1].clients.tolist()))


def until_solved(strategy: str, **settings: Any) -> float:
    made = make_experiment(
        "quadratic",
        strategy,
        num_clients=20,
        num_rounds=60,
        settings={
            "scenario.dim": 60,
            "strategy.participation": 0.5,
            "strategy.num_directions": 10,
            **SLOW,
            **settings,
        },
    )
    for record in simulate(made).records:
        if record.metrics["gap"] < 0.3:
            return record.axis("virtual_seconds")
    return math.inf


@pytest.mark.slow
def test_it_is_there_before_the_one_that_waits() -> None:
    assert until_solved("fzoos_async") < 0.6 * until_solved("fzoos")


@pytest.mark.slow
@pytest.mark.parametrize("design", ["shared", "private"])
def test_noise_does_not_stop_it(design: str) -> None:
    noisy = {"scenario.noise_std": 0.01, "strategy.design": design}
    assert until_solved("fzoos_async", **noisy) < math.inf


def test_what_means_nothing_is_refused() -> None:
    for settings, told in (
        ({"strategy.lengthscale": 2.0, "scenario.dim": 24}, "is no square image"),
        ({"strategy.min_answers": 3}, "waits for nobody"),
        ({"strategy.aggregator": "median"}, "aggregator"),
        ({"strategy.buffer": 11}, "at most 10, as many as work at a time"),
    ):
        with pytest.raises(ConfigError, match=told):
            until_solved("fzoos_async", **settings)

"""Markov soccer: its rules, its values against games that are played, and best replies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedzo.errors import ConfigError
from scenarios.problems.soccer import STEPS, Soccer

GAME = Soccer()
UNIFORM = torch.full((len(GAME.states), len(STEPS)), 1 / len(STEPS), dtype=torch.float64)
STAY, UP, DOWN, LEFT, RIGHT = range(5)


def policies(seed: int, count: int) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    shape = (count, len(GAME.states))
    return torch.from_numpy(generator.dirichlet(np.full(len(STEPS), 0.3), size=shape))


def after(state: tuple[int, int, int], mine: int, theirs: int) -> list[int | tuple[int, ...]]:
    """Return the states after both steps, for both orders; 264 and 265 are goals."""
    found = GAME.after[GAME.states.index(state), mine, theirs].tolist()
    return [GAME.states[i] if i < len(GAME.states) else i for i in found]


def test_players_move_and_stop_at_the_edge() -> None:
    assert after((0, 11, 0), RIGHT, UP) == [(1, 7, 0)] * 2
    assert after((0, 11, 0), UP, DOWN) == [(0, 11, 0)] * 2


def test_who_steps_onto_the_other_stays_and_the_ball_is_the_others() -> None:
    assert after((5, 6, 0), RIGHT, STAY) == [(5, 6, 1)] * 2
    assert after((5, 6, 1), RIGHT, STAY) == [(5, 6, 1)] * 2
    assert after((5, 6, 0), RIGHT, RIGHT) == [(5, 7, 1), (6, 7, 0)]


def test_goals_are_the_middle_row_behind_the_other_and_need_the_ball() -> None:
    goal_of_victim, goal_of_agent = len(GAME.states), len(GAME.states) + 1
    assert after((7, 0, 0), RIGHT, STAY) == [goal_of_agent] * 2
    assert after((0, 4, 1), STAY, LEFT) == [goal_of_victim] * 2
    assert after((7, 0, 1), RIGHT, STAY) == [(7, 0, 1)] * 2
    assert after((3, 0, 0), RIGHT, STAY) == [(3, 0, 0)] * 2
    assert after((4, 0, 0), LEFT, STAY) == [(4, 0, 0)] * 2


def test_the_game_is_fair() -> None:
    assert float(GAME.value(UNIFORM, UNIFORM)) == pytest.approx(0, abs=1e-12)
    visits, goals = GAME.visits(UNIFORM, UNIFORM)
    assert float(visits.sum()) < 1 / (1 - GAME.goes_on)
    ends = float(visits.sum()) * (1 - GAME.goes_on) + GAME.goes_on * float(goals.sum())
    assert ends == pytest.approx(1, abs=1e-12)


@given(st.integers(0, 1000))
@settings(max_examples=3)
def test_values_are_those_of_games_that_are_played(seed: int) -> None:
    agents, victim = policies(seed, 3), policies(seed + 1, 1)[0]
    dice = GAME.dice(5_000, generator=np.random.default_rng(seed))
    played = GAME.played(agents, victim, dice)
    assert torch.equal(played, GAME.played(agents, victim, dice))
    error = (played - GAME.value(agents, victim)).abs().max()
    assert float(error) < 5 / 5_000**0.5


@given(st.integers(0, 1000), st.sampled_from([0, 1]), st.sampled_from([1.0, 0.4]))
@settings(max_examples=10)
def test_no_policy_does_better_than_the_best_reply(seed: int, by: int, share: float) -> None:
    opponent, own = policies(seed, 1), policies(seed + 1, 1)[0]
    best, values = GAME.best_reply(opponent, by, own=own, share=share)
    others = torch.cat([best, policies(seed + 2, 20)])
    mixed = (1 - share) * own + share * others
    pairs = (mixed, opponent[0]) if by == 0 else (opponent[0], mixed)
    found = GAME.value(*(torch.broadcast_tensors(*pairs)))
    told = float(values[0] @ GAME.begins)
    assert float(found[0]) == pytest.approx(told, abs=1e-5)
    better = found.min() if by == 0 else found.max()
    assert float(better) == pytest.approx(told, abs=1e-5)


@pytest.mark.more
def test_play_makes_players_harder_to_beat() -> None:
    def lost(rounds: int) -> float:
        _, victims = GAME.fictitious_play(3, rounds, generator=np.random.default_rng(1))
        return float((GAME.best_reply(victims, 0)[1] @ GAME.begins).mean())

    assert lost(1) < lost(5) < lost(20) < 0


def test_the_agents_places_are_shares_of_its_time() -> None:
    visits = GAME.visits(UNIFORM, UNIFORM)[0]
    places = GAME.places(visits / visits.sum())
    assert places.shape == (3, 4)
    assert float(places.sum()) == pytest.approx(1)


def test_pitches_that_are_none_are_refused() -> None:
    for wrong in ({"height": 2}, {"width": 9}, {"goes_on": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Soccer(**wrong)  # type: ignore[arg-type]

"""Which answers are left out before a rule sees them."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import Toy

from fedzo.errors import ConfigError
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.question import Question
from fedzo.protocol.questions import Judge
from strategies.core.robust import Defence, RobustConfig
from strategies.core.rounds import RoundConfig
from strategies.core.screening import outliers, rejected

COHORT = torch.tensor(
    [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64
)


def with_liar(value: float) -> torch.Tensor:
    return torch.cat([COHORT, torch.full((1, 2), value, dtype=torch.float64)])


def replies(vectors: torch.Tensor) -> Replies:
    return Replies(client_ids=list(range(len(vectors))), tensors={"update": vectors})


ASKED = Toy()


def among(robust: RobustConfig, clients: int) -> Defence:
    """Return a rule among so many clients, all of whom are asked."""
    return Defence(robust=robust, cohort=clients, answers=clients, num_clients=clients)


def screen(
    vectors: torch.Tensor, question: Question[Any] = ASKED, **config: object
) -> dict[int, str]:
    exchange = Exchange(question=question, client_ids=list(range(len(vectors))))
    robust = {"aggregator": "trimmed_mean", "num_byzantine": 1, **config}
    rounds = {k: robust.pop(k) for k in ("non_finite",) if k in robust}
    defence = among(RobustConfig(**robust), len(vectors))  # type: ignore[arg-type]
    return rejected([exchange], [replies(vectors)], RoundConfig(**rounds), defence)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [5.0, -5.0, 1e150, -1e200, 1e308])
def test_who_is_far_beyond_the_others_is_left_out(value: float) -> None:
    # The others are sqrt(1/2) from their median (0.5, 0.5); three times that is 2.1.
    found = screen(with_liar(value))
    assert list(found) == [5]
    assert "outlier_multiple=3 times" in found[5]


@pytest.mark.parametrize("value", [0.0, 1.9, -0.9])
def test_who_is_as_near_as_others_stays(value: float) -> None:
    assert screen(with_liar(value)) == {}


def test_values_that_judge_are_left_out_only_where_they_are_no_numbers() -> None:
    assert screen(with_liar(1e9), question=Judge(x=torch.zeros(1, 1))) == {}
    assert list(screen(with_liar(math.nan), question=Judge(x=torch.zeros(1, 1)))) == [5]


def test_a_cohort_that_is_too_small_keeps_the_liar_for_the_rule() -> None:
    three = torch.tensor([[0.0], [1.0], [math.nan]])
    assert screen(three) == {}  # of two answers the trimmed mean could not withstand one
    assert list(screen(three, non_finite="reject")) == [2]


def test_without_liars_or_with_inf_only_numbers_count() -> None:
    assert screen(with_liar(1e9), num_byzantine=0, aggregator="mean") == {}
    assert screen(with_liar(1e9), outlier_multiple=math.inf) == {}
    assert list(screen(with_liar(math.nan), outlier_multiple=math.inf)) == [5]
    assert screen(with_liar(math.nan), non_finite="pass") == {}


def test_questions_made_at_once_are_compared_together() -> None:
    config = RobustConfig(aggregator="trimmed_mean", num_byzantine=1)
    parts = [
        Replies(client_ids=[0, 2, 3], tensors={"update": COHORT[:3]}),
        Replies(client_ids=[1, 4], tensors={"update": COHORT[3:] * 99}),
    ]
    asked = [Exchange(question=Toy(), client_ids=part.client_ids) for part in parts]
    assert list(rejected(asked, parts, RoundConfig(), among(config, 5))) == [4]


@given(
    rows=st.lists(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2), min_size=5, max_size=9),
    liars=st.integers(1, 2),
    multiple=st.floats(1.0, 100.0),
)
def test_at_most_as_many_as_may_lie_are_absurd(
    rows: list[list[float]], liars: int, multiple: float
) -> None:
    vectors = torch.tensor(rows, dtype=torch.float64)
    found = outliers(vectors, liars, multiple)
    assert int(found.sum()) <= liars
    moved = outliers(2 * vectors + 7, liars, multiple)
    assert int((moved & ~found).sum()) <= liars


@pytest.mark.parametrize("multiple", [0.5, -1.0, math.nan])
def test_a_multiple_below_one_is_refused(multiple: float) -> None:
    with pytest.raises(ConfigError, match="outlier_multiple"):
        RobustConfig(outlier_multiple=multiple)

"""Means and errors by hand, who is the reference, and what is said of few pairs."""

import math

import pytest

from fedzo.errors import ConfigError
from fedzo.records.standing import Panel, standings

EIGHT = range(8)


def panel(**more: object) -> Panel:
    values = {
        "good": {s: 1.0 + 0.1 * s for s in EIGHT},
        "bad": {s: 3.0 + 0.2 * s for s in EIGHT},
        "worse": {s: 5.0 + 0.3 * s for s in EIGHT},
    }
    return standings("value", values, **more)  # type: ignore[arg-type]


def test_mean_error_and_difference_by_hand() -> None:
    found = standings("value", {"a": {0: 1.0, 1: 3.0}, "b": {1: 4.0, 0: 4.0, 2: 10.0}})
    a, b = found.rows
    assert (a.mean, a.error, a.difference) == (2.0, pytest.approx(1.0), None)
    assert (b.mean, b.seeds) == (6.0, [0, 1, 2])
    assert b.error == pytest.approx(2.0)
    assert b.difference is not None
    assert b.difference.paired.difference == pytest.approx(2.0)
    assert b.difference.paired.error == pytest.approx(1.0)
    assert (b.difference.paired.wins, b.difference.paired.losses) == (0, 2)
    assert found.reference == found.best == "a"


def test_evidence_for_the_other_side_proves_nothing() -> None:
    """One seed of 500 makes b worse on average; ranks say that it is better on most seeds."""
    small = [0.001 * i for i in range(1, 26)]
    away = [*small, *(-1 - 0.02 * i for i in range(24)), 500.0]
    values = {"a": dict.fromkeys(range(50), 100.0), "b": {s: 100 + d for s, d in enumerate(away)}}
    found = standings("value", values)
    row = found.rows[1]
    assert found.best == "a"
    assert row.significant
    assert row.difference is not None
    assert row.difference.paired.losses > row.difference.paired.wins
    assert row.difference.paired.lead("wilcoxon") > 0
    assert not found.proven


def test_the_best_is_proven_where_it_beats_all_others() -> None:
    assert panel().proven
    assert panel().reference == "good"
    assert [row.significant for row in panel().rows] == [None, True, True]
    up = panel(higher=True)
    assert (up.reference, up.proven) == ("worse", True)
    against = panel(baseline="bad")
    assert (against.reference, against.best, against.proven) == ("bad", "good", True)
    assert panel(baseline="worse", higher=True).proven


def test_a_tie_proves_nothing() -> None:
    same = {s: 1.0 for s in EIGHT}
    found = standings("value", {"a": same, "b": same, "c": {s: 2.0 + s for s in EIGHT}})
    assert not found.proven
    assert [row.significant for row in found.rows] == [None, None, True]
    assert "b: none can reach p < 0.05: with 0 untied pairs p cannot be below 1" in found.notes[-1]


def test_a_method_without_all_seeds_or_with_an_infinite_value_has_no_mean() -> None:
    found = standings("queries", {"a": {0: 5.0, 1: math.inf}, "b": {0: math.inf, 1: math.inf},
                                  "c": {0: math.nan}})  # fmt: skip
    assert [row.mean for row in found.rows] == [None, None, None]
    assert [list(row.seeds) for row in found.rows] == [[0, 1], [0, 1], []]
    assert found.order == ["a", "b", "c"]
    assert found.rows[1].difference is not None
    assert found.rows[1].difference.paired.losses == 1
    assert found.rows[2].difference is None


@pytest.mark.parametrize(
    ("seeds", "methods", "said"),
    [
        (3, 2, "with 3 untied pairs p cannot be below 0.25; 6 pairs can."),
        (5, 3, "5 untied pairs p cannot be below 0.062 (0.12 after the correction); 6 pairs can,"
               " 7 with the correction for 2."),
        (6, 3, "6 untied pairs p cannot be below 0.031 (0.062 after the correction); 6 pairs can,"
               " 7 with the correction for 2."),
    ],
)  # fmt: skip
def test_too_few_pairs_are_told(seeds: int, methods: int, said: str) -> None:
    values = {str(k): {s: k + 0.1 * k * s for s in range(seeds)} for k in range(methods)}
    found = standings("value", values)
    assert found.notes[-1].endswith(said)
    assert found.notes[-1].startswith("No difference can reach p < 0.05")
    assert [row.significant for row in found.rows] == [None] * methods


def test_enough_pairs_are_not_told_of_and_a_baseline_was_not_chosen_by_the_seeds() -> None:
    assert not any("can reach" in note for note in panel().notes)
    assert any("chosen as the best by these same seeds" in note for note in panel().notes)
    assert not any("same seeds" in note for note in panel(baseline="bad").notes)
    assert any("2 comparisons (Holm 1979)" in note for note in panel().notes)
    assert any("exact sign test" in note for note in panel(test="sign").notes)
    assert standings("value", {"alone": {0: 1.0}}).notes == []


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"baseline": "goood"}, r"unknown baseline goood; did you mean good\?"),
        ({"test": "t"}, "unknown test t; allowed: sign, wilcoxon"),
    ],
)
def test_what_is_unknown_is_named(more: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        panel(**more)
    with pytest.raises(ConfigError, match="no run has a value of gap"):
        standings("gap", {"a": {0: math.nan}})


def test_a_best_mean_that_an_outlier_made_is_not_proven_by_the_seeds_it_lost() -> None:
    lucky = dict.fromkeys(range(12), 2.0)
    usual = {**dict.fromkeys(range(11), 1.0), 11: 99.0}
    found = standings("value", {"lucky": lucky, "usual": usual}, test="sign")
    assert found.best == "lucky"
    assert found.rows[1].significant
    assert not found.proven

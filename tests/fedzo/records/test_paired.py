"""Paired comparison: by hand, against scipy, and its limits."""

import math

import pytest
from scipy import stats

from fedzo.records.paired import LEVEL, differences, holm, paired, pairs_needed


def test_wins_losses_and_ties_by_hand() -> None:
    told = paired([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 3.0, 3.0])
    assert told is not None
    assert (told.wins, told.losses, told.ties) == (2, 1, 1)
    assert told.difference == pytest.approx(-0.5)
    assert told.sign_p == pytest.approx(1.0)  # 2 of 3: P(at least as lopsided) = 1


@pytest.mark.parametrize("n", [3, 6])
def test_the_least_p_of_n_pairs_is_as_the_assumptions_say(n: int) -> None:
    told = paired(list(range(n)), [2.0 * k + 10 for k in range(n)])
    assert told is not None
    assert told.sign_p == pytest.approx(2.0 ** (1 - n))
    assert told.wilcoxon_p == pytest.approx(2.0 ** (1 - n))


def test_wilcoxon_is_that_of_scipy_without_the_pairs_that_tie() -> None:
    a, b = [1.0, 5.0, 2.5, 8.0, 3.0], [1.5, 4.0, 2.5, 5.5, 7.0]
    told = paired(a, b)
    assert told is not None
    expected = stats.wilcoxon([p - q for p, q in zip(a, b, strict=True) if p != q]).pvalue
    assert told.wilcoxon_p == pytest.approx(expected)


def test_nothing_to_compare_and_nothing_but_ties() -> None:
    assert paired([], []) is None
    assert paired([math.nan], [1.0]) is None
    told = paired([1.0, 1.0], [1.0, 1.0])
    assert told is not None
    assert (told.ties, told.sign_p, told.wilcoxon_p) == (2, 1.0, 1.0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_more_may_be_better() -> None:
    told = paired([1.0, 2.0, 3.0], [2.0, 4.0, 3.0], higher=True)
    assert told is not None
    assert (told.wins, told.losses, told.ties, told.pairs) == (0, 2, 1, 3)
    assert told.difference == pytest.approx(-1.0)
    assert told.error == pytest.approx((1.0 / 3) ** 0.5)


def test_what_is_infinite_ranks_behind_all_numbers() -> None:
    """As if it were any number larger than the largest difference, and two of them tie."""
    inf = math.inf
    told = paired([1.0, 2.0, inf, inf, 5.0, 3.0, 2.0], [4.0, inf, 1.0, inf, 5.5, 3.25, 2.125])
    beyond = paired([1.0, 2.0, 99.0, 1.0, 5.0, 3.0, 2.0], [4.0, 99.0, 1.0, 1.0, 5.5, 3.25, 2.125])
    assert told is not None
    assert beyond is not None
    assert (told.wins, told.losses, told.ties) == (beyond.wins, beyond.losses, beyond.ties)
    assert (told.wins, told.losses, told.ties) == (5, 1, 1)
    assert math.isnan(told.difference)
    assert told.sign_p == pytest.approx(stats.binomtest(5, 6).pvalue)
    ranked = stats.wilcoxon([-3.0, -7.0, 7.0, -0.5, -0.25, -0.125])
    assert told.wilcoxon_p == pytest.approx(ranked.pvalue)


def test_differences_are_of_common_seeds_and_corrected_together() -> None:
    values = {
        "a": {seed: 1.0 * seed for seed in range(8)},
        "b": {seed: 2.0 * seed + 5 for seed in range(2, 10)},
        "c": {seed: 1.0 * seed - (-1) ** seed for seed in range(8)},
        "none": {99: 1.0},
    }
    found = differences(values, [("b", "a"), ("c", "a"), ("none", "a")])
    assert [(one.a, one.paired.pairs) for one in found] == [("b", 6), ("c", 8)]
    assert [one.holm for one in found] == holm([one.paired.wilcoxon_p for one in found])
    assert found[0].holm == pytest.approx(2 * 2.0**-5)
    assert [one.least for one in found] == pytest.approx([2.0**-5, 2 * 2.0**-7])
    signs = differences(values, [("b", "a"), ("c", "a")], test="sign")
    assert [one.holm for one in signs] == holm([one.paired.sign_p for one in signs])


def test_who_ended_before_the_other_got_there_is_not_compared_with_it() -> None:
    late = {0: 100.0, 1: 100.0, 2: math.inf, 3: 100.0}
    early = {0: math.inf, 1: math.inf, 2: math.inf, 3: 20.0}
    ends = {"late": dict.fromkeys(late, 150.0), "early": {0: 30.0, 1: 100.0, 2: 30.0, 3: 30.0}}
    [plain] = differences({"late": late, "early": early}, [("late", "early")])
    assert (plain.paired.wins, plain.paired.losses, plain.paired.ties) == (2, 1, 1)
    [told] = differences({"late": late, "early": early}, [("late", "early")], ends=ends)
    assert (told.paired.wins, told.paired.losses, told.paired.ties) == (1, 1, 1)


@pytest.mark.parametrize("comparisons", [1, 2, 3, 5, 19])
def test_so_many_pairs_and_no_fewer_can_reach_the_level(comparisons: int) -> None:
    pairs = pairs_needed(comparisons)
    assert comparisons * 2.0 ** (1 - pairs) < LEVEL <= comparisons * 2.0 ** (2 - pairs)

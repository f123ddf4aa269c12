"""Paired comparison: by hand, against scipy, and its limits."""

import math

import pytest
from scipy import stats

from fedzo.records.paired import holm, paired


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

"""When an exchange ends: at the last answer, at the n-th, or at the deadline."""

import math

import numpy as np
import pytest

from fedzo.fleet.devices import Spent
from fedzo.fleet.settling import settle


def spent(totals: list[float], lost: tuple[int, ...] = ()) -> Spent:
    compute = np.asarray(totals, dtype=float)
    out = np.zeros(len(totals), dtype=bool)
    out[list(lost)] = True
    return Spent(down=0.25 * compute, compute=0.5 * compute, up=0.25 * compute, lost=out)


@pytest.mark.parametrize(
    ("totals", "lost", "enough", "deadline", "seconds", "missed"),
    [
        ([1, 4, 2], (), 0, 10, 4, []),
        ([1, 4, 2], (), 2, 10, 2, [1]),
        ([1, 4, 2], (), 2, 1.5, 1.5, [1, 2]),
        ([1, 4, 2], (0,), 2, 10, 4, [0]),
        ([1, 4, 2], (0,), 0, 10, 10, [0]),
        ([1, 4, 2], (0, 1, 2), 0, 10, 10, [0, 1, 2]),
        ([3, 3, 3], (), 1, 10, 3, []),
        ([1, 4, 2], (), 5, 10, 4, []),
        ([1, 40], (), 0, math.inf, 40, []),
        ([], (), 0, 10, 0, []),
    ],
)
def test_an_exchange_ends(
    totals: list[float],
    lost: tuple[int, ...],
    enough: int,
    deadline: float,
    seconds: float,
    missed: list[int],
) -> None:
    found = settle([spent(totals, lost)], deadline, enough=enough)
    assert found.took.seconds == seconds
    assert np.flatnonzero(found.missed[0]).tolist() == missed
    assert found.took.wasted == len(missed)
    kept = [t for i, t in enumerate(totals) if i not in missed]
    mean = sum(kept) / len(kept) if kept else 0
    parts = (found.took.down, found.took.compute, found.took.up)
    assert parts == pytest.approx((0.25 * mean, 0.5 * mean, 0.25 * mean))
    assert sum(parts) + found.took.waiting == pytest.approx(seconds)


def test_exchanges_made_at_once_take_as_long_as_the_longest() -> None:
    found = settle([spent([1, 2]), spent([5, 7])], 10, enough=3)
    assert found.took.seconds == 5
    assert [m.tolist() for m in found.missed] == [[False, False], [False, True]]
    assert found.took.compute == pytest.approx(0.5 * (1 + 2 + 5) / 3)


def test_who_answers_that_it_has_none_is_not_one_of_the_enough() -> None:
    failed = [np.asarray([True, False, False, False])]
    found = settle([spent([1, 4, 2, 9])], 10, enough=2, failed=failed)
    assert found.took.seconds == 4
    assert found.missed[0].tolist() == [False, False, False, True]
    nobody = settle([spent([1, 4])], 10, enough=2, failed=[np.ones(2, dtype=bool)])
    assert nobody.took.seconds == 4

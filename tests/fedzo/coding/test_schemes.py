"""Every admissible pattern of stragglers decodes exactly; others do after waiting."""

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest

from fedzo.coding.gradient_code import GradientCode
from fedzo.coding.scheme import Scheme
from fedzo.coding.schemes import GC, MSGC, SRSGC
from fedzo.errors import ConfigError
from fedzo.randomness import stream

Pattern = Sequence[frozenset[int]]


class Master:
    """Runs jobs of random gradients under a pattern, and decodes them when they are due."""

    def __init__(self, scheme: Scheme, seed: int = 0) -> None:
        self.scheme, self.arrived, self.waits = scheme, {}, 0
        self.gradients = stream(seed, "units").standard_normal((40, scheme.units, 3))
        self.worst = 0.0
        self.tasks = 0

    def play(self, pattern: Pattern) -> float:
        """Return the largest error of what was decoded; stragglers are waited for if they must."""
        scheme, everybody = self.scheme, range(self.scheme.workers)
        for now, slow in enumerate(pattern, 1):
            tasks = scheme.assign(now, self.arrived)
            answered = [worker for worker in everybody if worker not in slow]
            after = scheme.after(self.arrived, tasks, answered)
            if not scheme.is_feasible(now, after):
                self.waits += 1
                after = scheme.after(self.arrived, tasks, list(everybody))
                assert scheme.is_feasible(now, after), "all answers are always enough"
            self.arrived = after
            due = now - scheme.delay
            if due >= 1:
                self.worst = max(self.worst, self.error(due))
        return self.worst

    def error(self, job: int) -> float:
        weights = self.scheme.decode(self.arrived[job])
        assert weights is not None, f"job {job} is due and cannot be decoded"
        total = np.zeros(3)
        for worker, slot in zip(*np.nonzero(self.arrived[job]), strict=True):
            units, counts = self.scheme.pieces(int(worker), int(slot))
            total += weights[worker, slot] * (counts @ self.gradients[job, units])
        return float(np.abs(total - self.gradients[job].sum(0)).max())


def admissible(workers: int, burst: int, window: int, most: int, rounds: int) -> Iterator[Pattern]:
    """Return all patterns in which any `window` rounds have at most `most` stragglers in bursts."""
    sets = [
        frozenset(chosen)
        for count in range(most + 1)
        for chosen in itertools.combinations(range(workers), count)
    ]

    def grown(pattern: list[frozenset[int]]) -> Iterator[Pattern]:
        if len(pattern) == rounds:
            yield pattern
            return
        for slow in sets:
            longer = [*pattern, slow]
            if allowed(longer[-window:], burst, most):
                yield from grown(longer)

    return grown([])


def allowed(window: Pattern, burst: int, most: int) -> bool:
    """Return whether the last window of a pattern is as said."""
    slow = frozenset().union(*window)
    if len(slow) > most:
        return False
    for worker in slow:
        when = [place for place, names in enumerate(window) if worker in names]
        if when[-1] - when[0] >= burst:
            return False
    return True


def drawn(workers: int, burst: int, window: int, most: int, rounds: int, seed: int) -> Pattern:
    """Return one admissible pattern with many stragglers."""
    generator, pattern = stream(seed, "pattern"), list[frozenset[int]]()
    for _ in range(rounds):
        names = frozenset[int]()
        for worker in generator.permutation(workers).tolist():
            tried = names | {worker}
            if allowed([*pattern, tried][-window:], burst, most):
                names = tried
        pattern.append(names)
    return pattern


SMALL = [
    (SRSGC, 4, 1, 2, 2, 4),
    (SRSGC, 5, 1, 3, 2, 3),
    (SRSGC, 4, 2, 3, 2, 4),
    (MSGC, 5, 1, 2, 2, 3),
    (MSGC, 4, 1, 3, 2, 4),
    (MSGC, 4, 2, 3, 1, 5),
    (MSGC, 3, 1, 2, 3, 4),
    (MSGC, 4, 2, 4, 2, 3),
]
LONGER = [(kind, *sizes, rounds + 1) for kind, *sizes, rounds in SMALL]


@pytest.mark.more
@pytest.mark.parametrize(("kind", "workers", "burst", "window", "most", "rounds"), SMALL)
def test_all_admissible_patterns_decode_without_waiting(
    kind: type[SRSGC | MSGC], workers: int, burst: int, window: int, most: int, rounds: int
) -> None:
    scheme = kind(workers, burst=burst, window=window, stragglers=most)
    calm: list[frozenset[int]] = [frozenset()] * (scheme.delay + 1)
    count = 0
    for pattern in admissible(workers, burst, window, most, rounds):
        master = Master(scheme)
        assert master.play([*pattern, *calm]) < 1e-9
        assert master.waits == 0, pattern
        count += 1
    assert count > 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "workers", "burst", "window", "most", "rounds"),
    [
        *LONGER,
        (MSGC, 8, 1, 2, 3, 3),
        (MSGC, 8, 2, 3, 2, 4),
        (SRSGC, 8, 1, 2, 4, 3),
        (SRSGC, 8, 2, 3, 3, 3),
        (MSGC, 6, 1, 2, 6, 2),
    ],
)
def test_all_admissible_patterns_of_more_rounds_and_workers(
    kind: type[SRSGC | MSGC], workers: int, burst: int, window: int, most: int, rounds: int
) -> None:
    test_all_admissible_patterns_decode_without_waiting(kind, workers, burst, window, most, rounds)


@pytest.mark.more
@pytest.mark.parametrize(
    ("kind", "workers", "burst", "window", "most"),
    [
        (SRSGC, 16, 1, 2, 6), (SRSGC, 12, 2, 5, 4), (SRSGC, 20, 3, 4, 5),
        (MSGC, 16, 1, 2, 7), (MSGC, 12, 2, 4, 4), (MSGC, 10, 3, 5, 10), (MSGC, 20, 2, 3, 3),
    ],
)  # fmt: skip
def test_full_patterns_of_more_workers_decode_without_waiting(
    kind: type[SRSGC | MSGC], workers: int, burst: int, window: int, most: int
) -> None:
    scheme = kind(workers, burst=burst, window=window, stragglers=most)
    for seed in range(10):
        master = Master(scheme, seed)
        assert master.play(drawn(workers, burst, window, most, 20, seed)) < 1e-7
        assert master.waits == 0


@pytest.mark.more
@pytest.mark.parametrize(
    "scheme",
    [
        GC(6, 2),
        SRSGC(8, burst=1, window=2, stragglers=4),
        MSGC(8, burst=1, window=2, stragglers=3),
        MSGC(5, burst=2, window=3, stragglers=2),
        MSGC(4, burst=1, window=3, stragglers=4),
    ],
    ids=lambda scheme: type(scheme).__name__,
)
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_other_patterns_are_exact_by_waiting(scheme: Scheme, share: float) -> None:
    waits = 0
    for seed in range(20):
        generator = stream(seed, "wild", int(10 * share))
        rows = generator.random((25, scheme.workers)) < share
        master = Master(scheme, seed)
        assert master.play([frozenset(np.flatnonzero(row).tolist()) for row in rows]) < 1e-8
        waits += master.waits
    assert waits > 0


def test_waiting_is_for_a_job_that_would_become_infeasible() -> None:
    """Not for one that is due: then nobody could help."""
    scheme = MSGC(4, burst=1, window=2, stragglers=1)
    tasks = scheme.assign(1, {})
    arrived = scheme.after({}, tasks, [])
    assert not scheme.is_feasible(1, arrived), "four of four straggle at once: their own parts"
    assert scheme.is_feasible(1, scheme.after({}, tasks, [0, 1, 2]))


@pytest.mark.parametrize("workers", range(1, 9))
def test_a_code_decodes_from_every_set_that_is_enough(workers: int) -> None:
    for stragglers in range(workers):
        code = GradientCode(workers, stragglers)
        assert all(len(code.parts_of(w)) == stragglers + 1 for w in range(workers))
        assert (code.matrix != 0).sum() == workers * (stragglers + 1)
        for live in itertools.combinations(range(workers), workers - stragglers):
            weights = code.decode(live)
            assert weights is not None
            np.testing.assert_allclose(weights @ code.matrix[list(live)], 1.0, atol=1e-9)


def test_the_cyclic_code_decodes_from_no_smaller_set() -> None:
    code = GradientCode(8, 4)
    assert not code.repeats
    assert all(code.decode(live) is None for live in itertools.combinations(range(8), 3))


@pytest.mark.parametrize(
    ("scheme", "load"),
    [
        (GC(256, 15), Fraction(16, 256)),
        (SRSGC(256, burst=2, window=3, stragglers=23), Fraction(13, 256)),
        (MSGC(256, burst=1, window=2, stragglers=27), Fraction(28 * 2, 256 * 29)),
        (MSGC(10, burst=2, window=4, stragglers=3), Fraction(4 * 5, 10 * (2 + 3 * 4))),
        (MSGC(10, burst=2, window=4, stragglers=10), Fraction(5, 10 * 3)),
    ],
)
def test_loads_are_those_of_the_formulas(scheme: Scheme, load: Fraction) -> None:
    assert scheme.load == load
    now = scheme.delay + 1
    arrived = {job: scheme.empty() for job in range(1, now)}
    for job in arrived:  # all has arrived that could have
        for before in range(job, now):
            for worker, each in enumerate(scheme.assign(before, {})):
                for other, slot in each:
                    if other == job:
                        arrived[job][worker, slot] = True
    most = max(
        sum(len(scheme.pieces(worker, slot)[0]) for _, slot in each)
        for worker, each in enumerate(scheme.assign(now, arrived))
    )
    assert Fraction(most, scheme.units) <= load


def test_units_are_covered_once() -> None:
    for scheme in (
        MSGC(6, burst=2, window=3, stragglers=2),
        MSGC(4, burst=1, window=3, stragglers=4),
    ):
        own = np.concatenate(
            [scheme.pieces(w, s)[0] for w in range(scheme.workers) for s in range(scheme.own)]
        )
        assert len(set(own.tolist())) == len(own)
        everything = {
            int(unit)
            for worker in range(scheme.workers)
            for slot in range(scheme.slots)
            for unit in scheme.pieces(worker, slot)[0]
        }
        assert everything == set(range(scheme.units))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: GC(4, 4), "stragglers=4 must be from 0 to 3"),
        (lambda: SRSGC(4, burst=2, window=4, stragglers=1), "one more than a multiple of burst=2"),
        (lambda: MSGC(4, burst=2, window=2, stragglers=1), "window=2 must be above burst=2"),
        (lambda: MSGC(4, burst=0, window=2, stragglers=1), "burst=0 must be at least 1"),
        (lambda: MSGC(4, burst=1, window=2, stragglers=5), "stragglers=5 must be from 0"),
    ],
)
def test_impossible_schemes_are_refused(make, match: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=match):
        make()

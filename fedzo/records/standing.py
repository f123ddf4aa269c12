"""Where methods stand on one measure: mean, standard error, and paired difference to one of them.

That one is a baseline, or the best: the method with the lowest mean (the highest where higher is
better). This is what `fedzo table`, `fedzo compare` and LaTeX in a paper say; the computation is
that of fedzo.records.paired and fedzo.records.spread.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedzo.config import unknown_key
from fedzo.errors import ConfigError
from fedzo.records.paired import (
    LEVEL,
    PAIRS,
    TESTS,
    Difference,
    differences,
    pairs_needed,
    unknown,
)
from fedzo.records.spread import mean_and_error


@dataclass(frozen=True, slots=True)
class Standing:
    """One method: what it has reached on its seeds, and how it differs from the reference.

    mean: None without seeds, and where a value is infinite. error: None for fewer than two seeds.
    difference: None of the reference itself, and without a seed in common.
    """

    method: str
    seeds: Sequence[int]
    mean: float | None
    error: float | None
    difference: Difference | None

    @property
    def significant(self) -> bool | None:
        """Whether it differs at LEVEL; None where so few pairs cannot tell."""
        if self.difference is None or self.difference.least >= LEVEL:
            return None
        return self.difference.holm < LEVEL


@dataclass(frozen=True, slots=True)
class Panel:
    """All methods on one measure.

    named: whether the reference was named, or is the best. order: methods from the best on.
    remarks: what is particular about the runs.
    """

    measure: str
    higher: bool
    test: str
    reference: str
    named: bool
    order: Sequence[str]
    rows: Sequence[Standing]
    remarks: Sequence[str] = field(default=())

    @property
    def best(self) -> str:
        """The method with the best mean; where none has one, that which is finite most often."""
        return self.order[0]

    @property
    def proven(self) -> bool:
        """Whether the best is significantly better than what it was compared with, all of it."""
        against = [row for row in self.rows if row.method == self.best]
        if self.best == self.reference:
            others = [row for row in self.rows if row.method != self.best]
            return bool(others) and all(_beats(row, -1, self.test) for row in others)
        return all(_beats(row, 1, self.test) for row in against)

    @property
    def title(self) -> str:
        """The measure and what is better."""
        return f"{self.measure} ({'higher' if self.higher else 'lower'} is better)"

    @property
    def notes(self) -> list[str]:
        """What is assumed, what the numbers cannot show, and what is particular about the runs."""
        found = [*self.remarks]
        compared = [row.difference for row in self.rows if row.difference is not None]
        if not compared:
            return found
        name = "Wilcoxon's signed-rank test" if self.test == "wilcoxon" else "the exact sign test"
        found.append(
            f"A difference is a method's value less {self.reference}'s, averaged over pairs of"
            f" seeds. p is that of {name}, holm is p corrected for {len(compared)}"
            f" comparison{'s' * (len(compared) > 1)} (Holm 1979)."
        )
        found += [PAIRS, TESTS[self.test]]
        if not self.named:
            found.append(
                f"{self.reference} was chosen as the best by these same seeds, which favors it; a"
                " baseline that is named beforehand has no such advantage."
            )
        return [*found, *_powerless(compared)]


def standings(
    measure: str,
    values: Mapping[str, Mapping[int, float]],
    *,
    higher: bool = False,
    baseline: str | None = None,
    test: str = "wilcoxon",
    remarks: Sequence[str] = (),
    ends: Mapping[str, Mapping[int, float]] | None = None,
) -> Panel:
    """Compare methods, given by their values by seed, with a baseline or with the best of them.

    ends: of costs until a level, where each run ended; an infinite one that ended before the other
    run of its pair got there is not compared with it.
    Raises ConfigError for a baseline that is no method, for an unknown test, and where no method
    has a value.
    """
    if test not in TESTS:
        raise unknown_key(test, TESTS, what="test")
    if baseline is not None and baseline not in values:
        raise unknown_key(baseline, values, what="baseline")
    known = {
        method: {seed: v for seed, v in by_seed.items() if not math.isnan(v)}
        for method, by_seed in values.items()
    }
    if not any(known.values()):
        raise ConfigError(f"no run has a value of {measure}; take another measure or position")
    spreads = {method: _spread([*by_seed.values()]) for method, by_seed in known.items()}
    order = sorted(known, key=lambda method: _rank([*known[method].values()], higher))
    reference = order[0] if baseline is None else baseline
    pairs = [(method, reference) for method in known if method != reference]
    told = differences(known, pairs, higher=higher, test=test, ends=ends)
    found = {one.a: one for one in told}
    remarks = [*remarks, *_early(known, ends, pairs)]
    rows = [
        Standing(method, sorted(known[method]), *spreads[method], found.get(method))
        for method in known
    ]
    return Panel(measure, higher, test, reference, baseline is not None, order, rows, remarks)


def _early(
    known: Mapping[str, Mapping[int, float]],
    ends: Mapping[str, Mapping[int, float]] | None,
    pairs: Sequence[tuple[str, str]],
) -> Iterator[str]:
    """Say of which pairs one run ended too early to be compared."""
    for a, b in pairs:
        seeds = sorted(known[a].keys() & known[b].keys())
        if early := [seed for seed in seeds if unknown(known, ends, seed, a, b)]:
            yield (
                f"{a} or {b} ended before the other got there on {len(early)} of {len(seeds)}"
                " seeds: who would have been first is not known, and these pairs are left out; give"
                " all runs as much."
            )


def _spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values or not np.isfinite(values).all():
        return None, None
    mean, error = mean_and_error(np.asarray(values))
    return float(mean), float(error) if len(values) > 1 else None


def _rank(values: Sequence[float], higher: bool) -> tuple[float, float]:
    """Return what sorts methods: the share of values that are infinitely bad, then the mean."""
    signed = [-v if higher else v for v in values]
    finite = [v for v in signed if math.isfinite(v)]
    lost = sum(v == math.inf for v in signed)
    return (
        lost / len(values) if values else math.inf,
        sum(finite) / len(finite) if finite else math.inf,
    )


def _beats(row: Standing, sign: int, test: str) -> bool:
    """Return whether a test shows a row to be better (sign 1) or worse (-1) than the reference."""
    if not row.significant or row.difference is None:
        return False
    return sign * row.difference.paired.lead(test) > 0


def _powerless(compared: Sequence[Difference]) -> list[str]:
    """Say which comparisons have too few pairs to show anything, and how many would do."""
    weak = [one for one in compared if one.least >= LEVEL]
    if not weak:
        return []
    who = "No difference" if len(weak) == len(compared) else f"{', '.join(o.a for o in weak)}: none"
    pairs = {one.paired.wins + one.paired.losses for one in weak}
    counts = f"{min(pairs)}" if len(pairs) == 1 else f"{min(pairs)} to {max(pairs)}"
    least = min(one.paired.least_p for one in weak)
    corrected = min(one.least for one in weak)
    holm = f" ({corrected:.2g} after the correction)" if corrected > least else ""
    needed, alone = pairs_needed(len(compared)), pairs_needed(1)
    more = f", {needed} with the correction for {len(compared)}" if needed > alone else ""
    return [
        f"{who} can reach p < {LEVEL}: with {counts} untied pairs p cannot be below"
        f" {least:.2g}{holm}; {alone} pairs can{more}."
    ]

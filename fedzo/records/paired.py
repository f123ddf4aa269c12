"""Paired comparison of two methods over the same seeds: who is lower, and how surely.

For pairs (a_i, b_i) of one measure on seed i, lower is better: wins, losses and ties of a, and

    sign test       P(so lopsided or more | each untied pair is won with 1/2), exact binomial
    Wilcoxon        signed-rank test on a_i - b_i, pairs that tie left out (scipy, two-sided)

Wilcoxon, "Individual Comparisons by Ranking Methods", Biometrics Bulletin 1945. Both take seeds to
be independent; Wilcoxon takes differences to be symmetric about their median too. With n untied
pairs neither p can be below 2^(1 - n): three seeds show nothing at 5 %, six can.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedzo.records.spread import mean_and_error

LEVEL = 0.05
"""What a corrected p must be below for a difference to be called significant."""
PAIRS = (
    "Pairs are the same seed under both methods, and seeds are taken to be independent; a seed that"
    " one of the two lacks is left out."
)
SIGN = (
    "The exact sign test asks only who was better on each seed; pairs that tie are left out; it is"
    " two-sided."
)
WILCOXON = (
    "Wilcoxon's signed-rank test takes the differences to be symmetric about their median, so that"
    " their sizes may count; pairs that tie are left out; it is two-sided."
)
ASSUMPTIONS = (
    f"{PAIRS} {SIGN} {WILCOXON} With n untied pairs neither p can be below 2^(1-n):"
    " 0.25 for three seeds, 0.03 for six. `holm` is Wilcoxon's p corrected for all pairs of methods"
    " in this table (Holm 1979); without it, one pair in twenty would pass 0.05 by chance."
)
TESTS = {"wilcoxon": WILCOXON, "sign": SIGN}


@dataclass(frozen=True, slots=True)
class Paired:
    """Pairs of seeds that a won (was better), lost and tied; p of both tests, 1 where all tie.

    difference: mean of a - b over all pairs; error: its standard error, NaN for a single pair.
    ranks: what Wilcoxon's test looks at, the ranks of pairs that a won less those that it lost.
    """

    wins: int
    losses: int
    ties: int
    difference: float
    error: float
    sign_p: float
    wilcoxon_p: float
    ranks: float

    @property
    def pairs(self) -> int:
        """All pairs, with those that tie."""
        return self.wins + self.losses + self.ties

    @property
    def least_p(self) -> float:
        """The lowest p that so many untied pairs can have."""
        return min(1.0, 2.0 ** (1 - self.wins - self.losses))

    def p(self, test: str) -> float:
        """Return the p of a test, one of TESTS."""
        return self.sign_p if test == "sign" else self.wilcoxon_p

    def lead(self, test: str) -> float:
        """Return what is above 0 where a test speaks for a, below where it speaks for b."""
        return self.wins - self.losses if test == "sign" else self.ranks


@dataclass(frozen=True, slots=True)
class Difference:
    """Two methods on the seeds that both have; holm: the p of the test, corrected for all of them.

    least: the lowest that `holm` can be with so many untied pairs in all of them.
    """

    a: str
    b: str
    paired: Paired
    holm: float
    least: float


def paired(a: Sequence[float], b: Sequence[float], *, higher: bool = False) -> Paired | None:
    """Compare two methods, pair by pair; None where there is no pair without NaN.

    higher: whether more is better. An infinite value is worse, or better, than all others, and
    ranks so; two of them tie.
    """
    both = [(p, q) for p, q in zip(a, b, strict=True) if not (math.isnan(p) or math.isnan(q))]
    if not both:
        return None
    away = [0.0 if p == q else p - q for p, q in both]
    lower, above = sum(d < 0 for d in away), sum(d > 0 for d in away)
    wins, losses = (above, lower) if higher else (lower, above)
    sign_p = wilcoxon_p = 1.0
    ranks = 0.0
    if wins + losses:
        from scipy.stats import binomtest, rankdata, wilcoxon  # type: ignore[attr-defined]

        untied = np.asarray(_ranked(away))
        sign_p = float(binomtest(wins, wins + losses).pvalue)
        wilcoxon_p = float(wilcoxon(untied).pvalue)
        ranks = float(np.sign(untied) @ rankdata(np.abs(untied))) * (1 if higher else -1)
    ties = len(both) - wins - losses
    mean, error = mean_and_error(np.asarray(away)) if np.isfinite(away).all() else (math.nan,) * 2
    return Paired(wins, losses, ties, float(mean), float(error), sign_p, wilcoxon_p, ranks)


def _ranked(away: Sequence[float]) -> list[float]:
    """Return the differences that are not 0, infinite ones as finite ones beyond all others."""
    beyond = 1.0 + 2.0 * max((abs(d) for d in away if math.isfinite(d)), default=0.0)
    return [max(-beyond, min(beyond, d)) for d in away if d]


def differences(
    values: Mapping[str, Mapping[int, float]],
    pairs: Iterable[tuple[str, str]],
    *,
    higher: bool = False,
    test: str = "wilcoxon",
    ends: Mapping[str, Mapping[int, float]] | None = None,
) -> list[Difference]:
    """Compare methods, given by their values by seed, and correct p for all of these pairs.

    Pairs of methods without a common seed are left out. ends: see `unknown`.
    """
    found: list[tuple[str, str, Paired]] = []
    for a, b in pairs:
        seeds = sorted(values[a].keys() & values[b].keys())
        seeds = [s for s in seeds if not unknown(values, ends, s, a, b)]
        told = paired([values[a][s] for s in seeds], [values[b][s] for s in seeds], higher=higher)
        if told is not None:
            found.append((a, b, told))
    corrected = holm([told.p(test) for *_, told in found])
    least = holm([told.least_p for *_, told in found])
    return [
        Difference(a, b, told, p, low)
        for (a, b, told), p, low in zip(found, corrected, least, strict=True)
    ]


def unknown(
    values: Mapping[str, Mapping[int, float]],
    ends: Mapping[str, Mapping[int, float]] | None,
    seed: int,
    *methods: str,
) -> bool:
    """Return whether one of two runs of a seed ended before the other had got to a level.

    values: what was spent until then, infinite where a run never did. ends: where all runs ended.
    """
    spent = {method: values[method][seed] for method in methods}
    first = min(spent.values())
    if ends is None or math.isinf(first):
        return False
    return any(math.isinf(own) and ends[method][seed] < first for method, own in spent.items())


def pairs_needed(comparisons: int) -> int:
    """Return how many untied pairs can bring p below LEVEL after Holm's correction."""
    return math.floor(math.log2(comparisons / LEVEL)) + 2


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down rule, in their order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected

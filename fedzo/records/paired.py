"""Paired comparison of two methods over the same seeds: who is lower, and how surely.

For pairs (a_i, b_i) of one measure on seed i, lower is better: wins, losses and ties of a, and

    sign test       P(so lopsided or more | each untied pair is won with 1/2), exact binomial
    Wilcoxon        signed-rank test on a_i - b_i, pairs that tie left out (scipy, two-sided)

Wilcoxon, "Individual Comparisons by Ranking Methods", Biometrics Bulletin 1945. Both take seeds to
be independent; Wilcoxon takes differences to be symmetric about their median too. With n untied
pairs neither p can be below 2^(1 - n): three seeds show nothing at 5 %, six can.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ASSUMPTIONS = (
    "Pairs are the same seed under both methods, and seeds are taken to be independent. The sign"
    " test asks only who was lower on each seed; pairs that tie are left out. Wilcoxon's"
    " signed-rank test also takes the differences to be symmetric about their median, so that their"
    " sizes may count. Both are two-sided, and with n untied pairs neither p can be below 2^(1-n):"
    " 0.25 for three seeds, 0.03 for six. `holm` is Wilcoxon's p corrected for all pairs of methods"
    " in this table (Holm 1979); without it, one pair in twenty would pass 0.05 by chance. A seed"
    " that one of the two methods lacks is left out."
)


@dataclass(frozen=True, slots=True)
class Paired:
    """Pairs of seeds that a won (was lower), lost and tied; p of both tests, 1 where all tie.

    difference: mean of a - b over all pairs.
    """

    wins: int
    losses: int
    ties: int
    difference: float
    sign_p: float
    wilcoxon_p: float


def paired(a: Sequence[float], b: Sequence[float]) -> Paired | None:
    """Compare two methods, pair by pair; None where there is no pair of finite values."""
    from scipy.stats import binomtest, wilcoxon  # type: ignore[attr-defined]

    both = [(p, q) for p, q in zip(a, b, strict=True) if math.isfinite(p) and math.isfinite(q)]
    if not both:
        return None
    away = [p - q for p, q in both]
    wins, losses = sum(d < 0 for d in away), sum(d > 0 for d in away)
    sign_p = wilcoxon_p = 1.0
    if wins + losses:
        sign_p = float(binomtest(wins, wins + losses).pvalue)
        wilcoxon_p = float(wilcoxon([d for d in away if d]).pvalue)
    ties = len(both) - wins - losses
    return Paired(wins, losses, ties, sum(away) / len(away), sign_p, wilcoxon_p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down rule, in their order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected

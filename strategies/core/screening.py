"""Answers that nobody honest sends are failures: not finite, or far beyond the cohort's spread.

    a_i = |v_i - median_j v_j|;   v_i is absurd where a_i > multiple * a_(n - f)

a_(k) is the k-th smallest distance: with at most f liars among n answers, a_(n - f) is at most that
of somebody honest, and at most f answers can be absurd. Shapes: vectors [n, d].

A rule that trims a liar at one end trims an honest client at the other; where clients differ much,
that bias costs more than the liar's absence (docs/results/robustness.md). So what is absurd is left
out before the rule sees it, and the rule still withstands f liars among the rest. Only where it
could not, because too few would remain, does an answer that is not finite go on to the rule, for
which it is one of the f.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fedzo.aggregation import median
from fedzo.aggregation.rows import finite_rows
from fedzo.finite import all_finite
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.question import Question
from strategies.core.robust import Defence, RobustConfig
from strategies.core.rounds import RoundConfig


def rejected(
    exchanges: Sequence[Exchange],
    parts: Sequence[Replies],
    rounds: RoundConfig,
    defence: Defence,
) -> dict[int, str]:
    """Return the clients whose answers are not to be used -> the reason."""
    config = defence.robust
    found: dict[int, str] = {}
    for question, name, ids, vectors in _alike(exchanges, parts):
        broken = ~torch.isfinite(vectors).all(dim=1) if not all_finite(vectors) else None
        reasons = {}
        if broken is not None and rounds.non_finite != "pass":
            reasons = {ids[i]: f"rejected: {name} is not finite" for i in _where(broken)}
        if question.judges:  # judged by a mean of values, which may differ as they like
            found.update(reasons)
            continue
        if config.num_byzantine:
            absurd = outliers(vectors, config.num_byzantine, config.outlier_multiple)
            absurd = absurd if broken is None else absurd & ~broken
            reasons.update({ids[i]: _far(name, config) for i in _where(absurd)})
        found.update(_affordable(reasons, len(ids), rounds, defence))
    return found


def _far(name: str, config: RobustConfig) -> str:
    return (
        f"rejected: {name} is further from the cohort's median than"
        f" strategy.outlier_multiple={config.outlier_multiple:g} times the others"
    )


def outliers(
    vectors: Float[Tensor, "n d"], num_byzantine: int, multiple: float
) -> Bool[Tensor, " n"]:
    """Return which rows are absurd; nobody where no liar is expected, or too many are."""
    n = len(vectors)
    if num_byzantine == 0 or n <= 2 * num_byzantine or multiple == float("inf"):
        return torch.zeros(n, dtype=torch.bool)
    rows = vectors.double()
    known = finite_rows(rows)
    if int(known.sum()) < n - num_byzantine:
        return torch.zeros(n, dtype=torch.bool)
    middle = median(rows[known])
    away = torch.linalg.vector_norm(rows - middle, dim=1).nan_to_num(nan=torch.inf)
    honest = away.sort().values[n - num_byzantine - 1]
    absurd: Tensor = away > multiple * honest
    return absurd


def left_out(
    vectors: Float[Tensor, "n d"], rounds: RoundConfig, defence: Defence
) -> Bool[Tensor, " n"]:
    """Return which rows of finite answers the server leaves out before its rule."""
    robust = defence.robust
    absurd = outliers(vectors, robust.num_byzantine, robust.outlier_multiple)
    gone = _affordable(dict.fromkeys(_where(absurd), ""), len(vectors), rounds, defence)
    found = torch.zeros(len(vectors), dtype=torch.bool)
    found[[*gone]] = True
    return found


def _affordable(
    reasons: Mapping[int, str], num: int, rounds: RoundConfig, defence: Defence
) -> dict[int, str]:
    """Return as many of the reasons as leave enough answers for the rule, where there were."""
    if defence.robust.num_byzantine == 0 or rounds.non_finite == "reject":
        return dict(reasons)
    if not defence.withstands(num, num):
        return dict(reasons)
    kept = dict(reasons)
    while kept and not defence.withstands(num - len(kept), num):
        kept.popitem()
    return kept


def _alike(
    exchanges: Sequence[Exchange], parts: Sequence[Replies]
) -> list[tuple[type[Question[Any]], str, list[int], Float[Tensor, "n d"]]]:
    """Return question, name, clients and flat rows of answers that compare with each other.

    Exchanges of one kind that are made at once are one question, asked with different settings.
    """
    groups: dict[tuple[type[Question[Any]], str, int], list[tuple[list[int], Tensor]]] = {}
    for exchange, replies in zip(exchanges, parts, strict=True):
        for name, tensor in replies.tensors.items():
            if tensor.is_floating_point() and len(tensor):
                flat = tensor.flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)
                key = (type(exchange.question), name, flat.shape[1])
                groups.setdefault(key, []).append((list(replies.client_ids), flat))
    return [
        (asked, name, [c for ids, _ in found for c in ids], _stacked([flat for _, flat in found]))
        for (asked, name, _), found in groups.items()
    ]


def _stacked(parts: Sequence[Float[Tensor, "_ d"]]) -> Float[Tensor, "n d"]:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _where(rows: Bool[Tensor, " n"]) -> list[int]:
    return rows.nonzero().flatten().tolist()

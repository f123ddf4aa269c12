"""What is said of a round's outcome: of one x, or of the models of all honest nodes.

Where every node has a model, F and the metrics are means over nodes; `disagreement` is the nodes'
root mean square distance from their mean model, and `nodes` keeps each one's own numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.problem import Report
from strategies.rounds import HasX, KnowsModels


@dataclass(frozen=True, slots=True)
class Verdict:
    """F, metrics, whether the goal is reached, and each node's numbers where nodes have models."""

    value: float | None
    metrics: dict[str, float]
    solved: bool
    nodes: dict[int, dict[str, float]] = field(default_factory=dict)


def judged_models(state: HasX, liars: frozenset[int]) -> tuple[list[int], Float[Tensor, "k d"]]:
    """Return the honest nodes and their models, or nobody and x."""
    if not isinstance(state, KnowsModels):
        return [], state.x.unsqueeze(0)
    rows = [i for i, client in enumerate(state.clients.tolist()) if client not in liars]
    if not rows:
        return [], state.x.unsqueeze(0)
    return state.clients[rows].tolist(), state.models[rows]


def verdict(
    nodes: Sequence[int], models: Float[Tensor, "k d"], reports: Sequence[Report]
) -> Verdict:
    """Return the mean of the reports on these models."""
    metrics = _mean([report.metrics for report in reports])
    values = [report.value for report in reports if report.value is not None]
    value = sum(values) / len(values) if values else None
    solved = all(report.solved for report in reports)
    if not nodes:
        return Verdict(value, metrics, solved)
    away = models - models.mean(dim=0)
    metrics["disagreement"] = float(torch.sqrt(away.square().sum(dim=1).mean()))
    own = {
        node: {**({} if report.value is None else {"value": report.value}), **report.metrics}
        for node, report in zip(nodes, reports, strict=True)
    }
    return Verdict(value, metrics, solved, own)


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {
        name: sum(float(found[name]) for found in metrics) / len(metrics) for name in metrics[0]
    }

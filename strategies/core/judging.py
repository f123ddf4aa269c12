"""What is said of a round's outcome: of one x, or of the models of all honest nodes.

Where every node has a model, F and the metrics are means over nodes; `disagreement` is the nodes'
root mean square distance from their mean model, and `nodes` keeps each one's own numbers.

Where a sample of the clients is asked, F is the sample's mean and the metric `standard_error` says
how far that may be from the mean of all.

Where f answers may be lies and nobody knows whose, F is the mean without the f largest and the f
smallest (a trimmed mean: no f liars move it beyond what honest clients say), and of models without
the f furthest from their coordinate-wise median.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation import median
from fedzo.errors import FedzoWarning
from fedzo.estimation.replay import start_of
from fedzo.objectives.problem import JudgesInPlace, PlacedProblem, Problem, Report
from fedzo.protocol.question import Question
from fedzo.protocol.questions.values import Judge, ValuesTold
from fedzo.randomness import stream
from fedzo.records.history import RoundRecord
from strategies.core.abilities import can
from strategies.core.outcome import RunSettings
from strategies.core.rounds import (
    BringsModules,
    HasX,
    IsInPlace,
    KnowsModels,
    RoundConfig,
    StateT,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """F, metrics, whether the goal is reached, and each node's numbers where nodes have models.

    judges: whose values F is the mean of; answered: who has told a value; least: how many must;
    partial: whether fewer have.
    """

    value: float | None
    metrics: dict[str, float]
    solved: bool
    nodes: dict[int, dict[str, float]] = field(default_factory=dict)
    judges: int = 0
    answered: int = 0
    least: int = 0
    partial: bool = False


def begun(state: StateT, problem: Problem) -> StateT:
    """Return the first state of a problem, with where modules begin that are moved in place."""
    if not isinstance(problem, PlacedProblem) or problem.module is None:
        return state
    if not can(state, BringsModules):
        return state
    placed: StateT = state.beginning_at(start_of(problem.module))
    return placed


def judges_of(
    rounds: RoundConfig, settings: RunSettings, problem: int
) -> Callable[[int], Sequence[int]]:
    """Return a function of a round: the clients that are asked for F, each as likely as another."""
    clients, judges = settings.num_clients, rounds.judges

    def drawn(round_index: int) -> Sequence[int]:
        generator = stream(settings.seed, "judges", problem, round_index)
        return sorted(generator.choice(clients, judges, replace=False).tolist())

    return drawn if 0 < judges < clients else lambda _round_index: range(clients)


def standard_error(values: Float[Tensor, " k"], num_clients: int) -> float:
    """Return how far the mean of k drawn clients' values is from that of all, as a deviation.

    s / sqrt(k) sqrt(1 - k / n), of a draw without replacement; NaN for one value.
    """
    count = len(values)
    spread = float(values.std()) if count > 1 else math.nan
    return spread * math.sqrt((1 - count / num_clients) / count)


def with_error(
    found: Verdict, values: Float[Tensor, " k"], num_asked: int, num_clients: int
) -> Verdict:
    """Return a verdict on x with the standard error of F among its metrics, where it has one."""
    if num_asked == num_clients or found.nodes:
        return found
    error = standard_error(values, num_clients)
    return replace(found, metrics={**found.metrics, "standard_error": error})


def required_judges(num_asked: int, known_to_fail: int, min_judges: int) -> int:
    """Return how many clients must answer for a whole F: all that can, and more than half."""
    return min_judges or max(num_asked - known_to_fail, num_asked // 2 + 1)


def known_to_fail(before: RoundRecord, now: RoundRecord, asked: Iterable[int]) -> int:
    """Return how many of those asked failed in this round and in the one before."""
    return len(before.failures.keys() & now.failures.keys() & {*asked})


def warn_of_partial(round_index: int, judges: int, least: int) -> None:
    """Say, once a run, what an F by too few judges is good for."""
    warnings.warn(
        f"round {round_index}: {judges} clients have judged x, and {least} can or must; such an F"
        " is marked as partial, and is neither the best nor a reason to stop; set"
        " strategy.min_judges to allow it",
        FedzoWarning,
        stacklevel=2,
    )


def judged_models(
    state: HasX, liars: frozenset[int], num_byzantine: int = 0
) -> tuple[list[int], Float[Tensor, "k d"]]:
    """Return the nodes whose models are judged and these, or nobody and x.

    num_byzantine: how many unknown liars there may be beside the known ones.
    """
    x = state.x
    if not can(state, KnowsModels):
        return [], x.unsqueeze(0)
    rows = [i for i, client in enumerate(state.clients.tolist()) if client not in liars]
    if not rows:
        return [], x.unsqueeze(0)
    kept = rows
    if 0 < 2 * num_byzantine < len(rows):
        models = state.models[rows]
        away = torch.linalg.vector_norm(models - median(models, num_byzantine=num_byzantine), dim=1)
        nearest = away.nan_to_num(nan=torch.inf).argsort(stable=True)[: len(rows) - num_byzantine]
        kept = [rows[i] for i in sorted(nearest.tolist())]
    return state.clients[kept].tolist(), state.models[kept]


def question_about(state: HasX, models: Float[Tensor, "k d"]) -> Question[ValuesTold]:
    """Return the question by which x, or these models, are judged."""
    return state.judge() if can(state, IsInPlace) else Judge(x=models)


def trusted_values(values: Float[Tensor, " n"], num_byzantine: int) -> Float[Tensor, " m"]:
    """Return the answers without the f largest and the f smallest, all where those are too many."""
    if num_byzantine == 0 or len(values) <= 2 * num_byzantine:
        return values
    return values.sort().values[num_byzantine:-num_byzantine]


def verdict(
    problem: Problem,
    state: HasX,
    nodes: Sequence[int],
    models: Float[Tensor, "k d"],
    seed: int,
    told: Sequence[Float[Tensor, " n"]] = (),
) -> Verdict:
    """Return what is said of x, or of these nodes' models.

    told: what clients answered for each; nothing where the simulation knows F without asking them.
    """
    values: Sequence[Tensor | None] = told or [None] * len(models)
    if can(state, BringsModules) and isinstance(problem, JudgesInPlace):
        bring_ = partial(state.bring_, seed=seed, problem=problem.index)
        return _verdict(nodes, models, [problem.report_in_place(bring_, values[0])])
    reports = [problem.report(x, own) for x, own in zip(models, values, strict=True)]
    return _verdict(nodes, models, reports)


def _verdict(
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
    """Return the mean of each metric over those that have it."""
    names = dict.fromkeys(name for found in metrics for name in found)
    having = {name: [float(found[name]) for found in metrics if name in found] for name in names}
    return {name: sum(values) / len(values) for name, values in having.items()}

"""Small examples of every question, and clients of two kinds that can answer them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.looped_cohort import LoopedCohort
from fedzo.objectives.objective import ModuleObjective
from fedzo.protocol import questions as q
from fedzo.protocol.question import Question
from fedzo.protocol.questions.anchored import AnchorConfig, with_rows
from fedzo.protocol.questions.in_place import InPlaceConfig
from fedzo.protocol.questions.private import ClippedConfig
from fedzo.protocol.questions.surrogate import SurrogateConfig
from fedzo.protocol.questions.training_config import (
    FirstOrderConfig,
    MomentumConfig,
    ZerothOrderConfig,
)
from scenarios.problems.mlp_cohort import MLPShards

IDS, LAYERS, D = (1, 4, 7), (3, 2), 8
SIZES = torch.tensor([6, 9, 4])
INPUTS = torch.linspace(-1, 1, 57, dtype=torch.float64).reshape(19, 3).sin()
LABELS = torch.arange(19) % 2
X = torch.linspace(-0.5, 0.5, D, dtype=torch.float64)
V = X.flip(0).cos()
ROWS = torch.tensor([0, 8 * D, 64 * D])
OWN = (X + torch.arange(3.0).double().unsqueeze(1)).contiguous()


def stacked() -> MLPShards:
    """Return the examples' clients as one tensor program."""
    offsets = SIZES.cumsum(0) - SIZES
    return MLPShards(inputs=INPUTS, targets=LABELS, offsets=offsets, sizes=SIZES, layers=LAYERS)


def looped() -> CohortObjective:
    """Return clients with as many examples, asked one by one."""
    net, loss = nn.Linear(3, 2).double(), nn.functional.cross_entropy
    parts = zip(INPUTS.split(SIZES.tolist()), LABELS.split(SIZES.tolist()), strict=True)
    return cohort_of([ModuleObjective(net, loss, inputs, labels) for inputs, labels in parts])


def is_looped(cohort: CohortObjective) -> bool:
    return isinstance(cohort, LoopedCohort)


@dataclass(frozen=True)
class Example:
    """A question, and those that must have been asked, or the states, before it."""

    question: Question[Any]
    before: Sequence[Question[Any]] = ()
    name: str = ""
    modules: bool = False
    """Whether only clients with modules of their own can answer."""

    def __str__(self) -> str:
        return f"{type(self.question).__name__}-{self.name}"


def examples() -> list[Example]:
    """Return examples of every question."""
    found = [*trained(), *anchored(), *peers(), *private(), *probes(), *in_place(), *coded()]
    found += [*surrogates(), *valued()]
    return [replace(e, name=str(number)) for number, e in enumerate(found)]


def trained() -> Iterator[Example]:
    told: dict[str, Any] = {"x": X, "local_steps": 2, "local_lr": 0.1}
    scaffold = {"control": V, "renew_control": True}
    for zeroth in (
        ZerothOrderConfig(num_directions=3),
        ZerothOrderConfig(estimator="central", num_directions=2, batch_size=2),
        ZerothOrderConfig(estimator="residual", num_directions=3, optimizer="sgd"),
        ZerothOrderConfig(estimator="coordinate"),
    ):
        yield Example(q.ZerothOrderSteps(settings=zeroth, **told))
        yield Example(q.GradientEstimate(x=X, settings=zeroth))
    yield Example(q.ZerothOrderSteps(settings=ZerothOrderConfig(), **told, **scaffold))
    yield Example(q.FirstOrderSteps(settings=FirstOrderConfig(), **told))
    yield Example(q.FirstOrderSteps(settings=FirstOrderConfig(batch_size=3), **told, **scaffold))
    prox = FirstOrderConfig(momentum=0.5, project=True)
    yield Example(q.FirstOrderSteps(settings=prox, proximal_weight=0.3, **told))
    for momentum in (MomentumConfig(), MomentumConfig(gradient="zeroth_order", num_directions=3)):
        yield Example(q.MomentumSteps(settings=momentum, **told))


def anchored() -> Iterator[Example]:
    zeroth = {"gradient": "zeroth_order", "num_directions": 2, "anchor_directions": 3}
    configs = [
        AnchorConfig(),
        AnchorConfig(anchor_batch_size=4, batch_size=2),
        AnchorConfig(**zeroth),  # type: ignore[arg-type]
        AnchorConfig(**zeroth, estimator="central", anchor_batch_size=4),  # type: ignore[arg-type]
        AnchorConfig(**zeroth, estimator="coordinate"),  # type: ignore[arg-type]
    ]
    for settings in configs:
        told: dict[str, Any] = {"x": X, "settings": settings, "local_steps": 2, "local_lr": 0.1}
        for question in (
            q.Anchor(**told),
            q.Anchor(**told, micro_batches=2),
            q.Difference(**told, previous=V),
            q.Walk(**told),
            q.Miner(**told, direction=V),
            q.Miner(**{**told, "local_steps": 1}, direction=V),
        ):
            yield Example(with_rows(question, IDS, turn=2, seed=5, problem=1))


def peers() -> Iterator[Example]:
    told: dict[str, Any] = {"local_steps": 2, "local_lr": 0.1, "dim": D}
    exact, zeroth = MomentumConfig(), MomentumConfig(gradient="zeroth_order", num_directions=3)
    first = q.OwnModel(x=X, settings=exact, **told)
    yield Example(first)
    yield Example(q.OwnModel(settings=exact, **told), [first])
    yield Example(q.OwnModel(settings=zeroth, **told), [first])
    heard = torch.ones(3, 3, dtype=torch.uint8)
    rules: dict[str, Any] = {"aggregator": "nearest_neighbor_average", "num_byzantine": 1}
    mix = q.Mix(models=OWN, heard=heard, own=torch.arange(3), report=True, **rules)
    yield Example(mix, [first])
    yield Example(replace(mix, aggregator="median", report=False), [first])
    lied = mix.told_by_liars(IDS, frozenset({4}), opposite=True)
    assert lied is not None
    yield Example(lied, [first])
    yield Example(q.PeerGradient(point=OWN))


def coded() -> Iterator[Example]:
    shards = torch.tensor([[[client]] for client in IDS])
    counts = torch.tensor([[[1.0]], [[-0.5]], [[2.0]]], dtype=torch.float64)
    point = torch.tensor([[0], [1], [1]])
    yield Example(q.CodedTasks(points=OWN[:2], point=point, shards=shards, counts=counts))


def private() -> Iterator[Example]:
    yield Example(q.Records())
    told: dict[str, Any] = {"x": X, "fresh": True, "clip_norm": 1.0, "change_clip": 0.5}
    told |= {"noise_source": "stream", "report": False}
    zeroth = ClippedConfig(gradient="zeroth_order", num_directions=3)
    forward = ClippedConfig(gradient="zeroth_order", num_directions=3, estimator="forward")
    rows = torch.full((3,), 4 * D)
    for settings in (ClippedConfig(), zeroth, forward):
        for unit in ("record", "client"):
            more = {"settings": settings, "unit": unit}
            more |= {} if settings.exact else {"first_row": rows}
            yield Example(q.Clipped(**told, **more, noise_std=0.1))
            yield Example(q.Clipped(**told, **more, previous=V))
            yield Example(q.Clipped(**{**told, "fresh": False, "report": True}, **more, previous=V))
    walk = {"local_steps": 3, "local_lr": 0.1, "local_batch": 2, "local_clip": 1.0}
    yield Example(
        q.ClippedWalk(
            x=X, direction=V, settings=ClippedConfig(), local_noise=0.1,
            noise_source="stream", **walk,  # type: ignore[arg-type]
        )
    )  # fmt: skip


def probes() -> Iterator[Example]:
    told: dict[str, Any] = {"x": X, "first_row": ROWS, "num_directions": 3, "mu": 0.01}
    for estimator in ("forward", "central"):
        for base in (False, True):
            made = q.Probes(**told, estimator=estimator, lengthscale=0.0, base=base)
            yield Example(made)
            yield Example(replace(made, slopes=True))


def in_place() -> Iterator[Example]:
    log = torch.tensor([0.5, -0.25])
    for settings in (
        InPlaceConfig(num_directions=2),
        InPlaceConfig(num_directions=1, estimator="forward", directions="gaussian", batch_size=2),
    ):
        yield Example(
            q.SlopesInPlace(news=log, settings=settings, local_steps=2, local_lr=0.1), modules=True
        )
        yield Example(q.JudgeInPlace(news=log, settings=settings), modules=True)
        if not settings.batch_size:
            yield Example(
                q.RecordSlopesInPlace(
                    news=log, settings=settings, clip_norm=0.5, report=True, compare=True
                ),
                modules=True,
            )
        m = settings.num_directions
        rows = torch.tensor([[3.0, *[0.5] * m], [2.0, *[-0.25] * m]])
        late = q.SlopesInWave(news=rows, settings=settings, local_steps=2, local_lr=0.1, step=7)
        yield Example(late, modules=True)
        yield Example(q.JudgeInPlace(news=rows, settings=settings), modules=True)


def surrogates() -> Iterator[Example]:
    settings = SurrogateConfig(
        num_features=5, initial_queries=4, active_queries=2, active_candidates=6,
        anchor_queries=3, anchor_candidates=6,
    )  # fmt: skip
    told: dict[str, Any] = {"settings": settings, "variant": "paper", "num_clients": 3}
    told |= {"local_steps": 2, "local_lr": 0.05}
    begin = q.SurrogateSteps(x=X, begin=True, merged=False, dim=D, **told)
    yield Example(begin)
    yield Example(replace(begin, merged=True))
    weights = q.SurrogateWeights(x=V, merged=False, **told)
    yield Example(weights, [begin])
    later = replace(begin, begin=False, x=None, weights=torch.ones(5, dtype=torch.float64))
    yield Example(later, [begin, weights])
    slopes: dict[str, Any] = {"kernel": "matern52", "lengthscale": 3.0, "max_rows": 20}
    gradient = q.SlopeGradient(x=X, first_row=ROWS, num_directions=3, mu=0.01, **slopes)
    yield Example(gradient)
    yield Example(q.CorrectedSteps(gradient=V, local_steps=2, local_lr=0.1, **slopes), [gradient])


def valued() -> Iterator[Example]:
    points: Tensor = torch.stack([X, V])
    yield Example(q.Values(x=points))
    yield Example(q.Judge(x=points[:1]))

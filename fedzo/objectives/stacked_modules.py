"""Modules of equal structure as one tensor program, in which a row is one point of one client.

    losses[r] = loss(module(inputs[r]; x[r]), targets[r])            torch.func.vmap over r

Every row has its own parameters, buffers and examples, so that a layer is one batched product, and
what a row gets depends on no other (fedzo.objectives.same_bits): a client has the same bits alone
as in any company, and so on any engine. Asked one after the other are the rows of a module of which
that is not known, or which cannot be mapped:

    convolutions            they sum in another order in another company, and gain nothing on a CPU
    products with a tensor  that rows share (no parameter, no buffer): torch folds rows into one
    draws, recurrent nets, attention kernels, control flow that looks at numbers, hooks

Which those are is seen in the operations of the first call, not in names. Modules are equal where
their types, shapes and plain attributes are, and losses where their code and what they close over
is; whatever else they hold must be the same object (fedzo.objectives.structure). Gradients are
those of the first order.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fedzo.errors import ObjectiveError
from fedzo.failure import failure_of
from fedzo.objectives.same_bits import SameBits
from fedzo.objectives.structure import module_key, value_key

_ROW_FLOATS = 1 << 21
"""Numbers of parameters and examples that the rows of one program hold: 8 MB in float32."""


Way = Literal["alone", "together", "filled"]
"""How rows are asked: one by one; as one program; as one that needs SameBits."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Modules of one structure: the way found by number of examples and whether x has gradients."""

    structure: Hashable = field(repr=False)
    ways: dict[tuple[int, bool], Way] = field(default_factory=dict)


@lru_cache(maxsize=256)
def program_of(structure: Hashable) -> Program:
    """Return the program of modules of a structure, with what this process has found about it."""
    return Program(structure)


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of a cohort's objectives, for one exchange: modules may change between two.

    keys: by identity of the module or the loss; found: by that of the objective, None for none.
    """

    keys: dict[int, Hashable | None] = field(default_factory=dict)
    found: dict[int, Program | None] = field(default_factory=dict)


@runtime_checkable
class Stackable(Protocol):
    """What is asked of a module objective (fedzo.objectives.modules)."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]: ...

    @property
    def inputs(self) -> Tensor: ...

    @property
    def targets(self) -> Tensor: ...

    @property
    def is_plain(self) -> bool: ...

    def minibatch(self, indices: Tensor) -> "Stackable": ...

    def loss_at(self, x: Float[Tensor, " d"]) -> Float[Tensor, ""]: ...

    def loss_of(
        self, x: Float[Tensor, " d"], buffers: Mapping[str, Tensor], inputs: Tensor, targets: Tensor
    ) -> Float[Tensor, ""]: ...


@dataclass(frozen=True, slots=True)
class Modules:
    """Objectives, each on the examples with its row of indices [n b], -1 for none, or on all."""

    objectives: Sequence[Stackable]
    batches: Int[Tensor, "n b"] | None = None

    def at(self, positions: Sequence[int]) -> "Modules":
        batches = None if self.batches is None else self.batches[positions]
        return Modules([self.objectives[p] for p in positions], batches)

    def counts(self) -> list[int]:
        """Return how many examples each is asked on."""
        if self.batches is None:
            return [len(objective.inputs) for objective in self.objectives]
        counts: list[int] = (self.batches >= 0).sum(dim=1).tolist()
        return counts

    def examples(self) -> tuple[Tensor, Tensor]:
        """Return the inputs [n, b, ...] and targets [n, b, ...] of as many examples each."""
        pairs = [(each.inputs, each.targets) for each in self.objectives]
        if self.batches is not None:
            first, *_ = self.counts()
            rows = self.batches[self.batches >= 0].reshape(-1, first)
            pairs = [(x[row], y[row]) for (x, y), row in zip(pairs, rows, strict=True)]
        inputs, targets = zip(*pairs, strict=True)
        return torch.stack(inputs), torch.stack(targets)

    def looped(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]:
        """Return the losses, asked one after the other."""
        own = [*self.objectives]
        if self.batches is not None:
            pairs = zip(own, self.batches, strict=True)
            own = [each.minibatch(row[row >= 0]) for each, row in pairs]
        rows = zip(own, x, strict=True)
        return torch.stack(
            [torch.stack([each.loss_at(at) for at in points]) for each, points in rows]
        )


def losses_of(
    modules: Modules, x: Float[Tensor, "n q d"], programs: Programs
) -> Float[Tensor, "n q"]:
    """Return each objective's loss at its points; what anyone's code raises is raised.

    Raises ObjectiveError where the code writes into the points.
    """
    before = None if x.is_inference() else x._version
    found = _of_groups(modules, x, programs)
    if before is not None and x._version != before:
        raise ObjectiveError(
            "the objective writes into the parameters that it is asked at; freeze what the module"
            " updates by itself, or make it a buffer"
        )
    return found


def _of_groups(
    modules: Modules, x: Float[Tensor, "n q d"], programs: Programs
) -> Float[Tensor, "n q"]:
    """Return the losses, those of equal modules together."""
    groups: dict[tuple[Program | None, int], list[int]] = {}
    for position, (objective, count) in enumerate(
        zip(modules.objectives, modules.counts(), strict=True)
    ):
        program = program_in(programs, objective)
        key = (program, count if program else position)
        groups.setdefault(key, []).append(position)
    if len(groups) == 1:
        [(program, count)] = groups
        return _of_equals(modules, x, program, count)
    found = [
        _of_equals(modules.at(positions), x[positions], program, count)
        for (program, count), positions in groups.items()
    ]
    order = [position for positions in groups.values() for position in positions]
    return torch.cat(found)[torch.tensor(order, device=x.device).argsort()]


def program_in(programs: Programs, objective: Stackable) -> Program | None:
    """Return the program in which an objective is a row; None where it has no structure."""
    if id(objective) in programs.found:
        return programs.found[id(objective)]
    keys, module, loss = programs.keys, objective.module, objective.loss
    if id(module) not in keys:
        keys[id(module)] = module_key(module) if objective.is_plain else None
    if id(loss) not in keys:
        keys[id(loss)] = value_key(loss)
    parts = (objective.inputs, objective.targets)
    examples = tuple((part.shape[1:], part.dtype, part.device) for part in parts)
    structure = (keys[id(module)], keys[id(loss)], examples)
    known = keys[id(module)] is not None
    programs.found[id(objective)] = program_of(structure) if known else None
    return programs.found[id(objective)]


def _of_equals(
    modules: Modules, x: Float[Tensor, "m q d"], program: Program | None, count: int
) -> Float[Tensor, "m q"]:
    """Return the losses of modules of one structure, each on so many examples."""
    if program is None:
        return modules.looped(x).reshape(x.shape[:2])
    wanted = (count, x.requires_grad)
    way, losses = program.ways.get(wanted), None
    if way is None:
        way, losses = _tried(modules, x)
        if way is None and len(x) > 1:  # no client's failure may decide for the others
            parts = [(modules.at([i]), x[i : i + 1]) for i in range(len(x))]
            return torch.cat([_of_equals(one, at, program, count) for one, at in parts])
    elif way != "alone":
        losses = _mapped(modules, x, SameBits() if way == "filled" else nullcontext())
    if losses is None:
        losses = modules.looped(x).reshape(x.shape[:2])
    program.ways[wanted] = way or "alone"
    return losses


def _tried(
    modules: Modules, x: Float[Tensor, "m q d"]
) -> tuple[Way | None, Float[Tensor, "m q"] | None]:
    """Return how rows are to be asked, None where they raise, and losses of those together."""
    operations = SameBits()
    try:
        losses = _mapped(modules, x, operations)
    except Exception as error:  # it cannot be mapped, or somebody's code raises
        failure_of(error)  # raises again what is meant for the whole process
        return None, None
    if operations.others:
        return "alone", None
    return "filled" if operations.filled else "together", losses


def _mapped(
    modules: Modules, x: Float[Tensor, "m q d"], operations: AbstractContextManager[Any]
) -> Float[Tensor, "m q"]:
    """Return the losses of programs of as many clients, or one client's points, as are together."""
    clients, points, dim = x.shape
    inputs = modules.objectives[0].inputs
    count = len(inputs) if modules.batches is None else modules.batches.shape[1]
    rows = max(1, _ROW_FLOATS // (dim + inputs.shape[1:].numel() * count))
    together = max(1, rows // points)
    parts = []
    for first in range(0, clients, together):
        some = [*range(first, min(first + together, clients))]
        part = modules if len(some) == clients else modules.at(some)
        inputs, targets = part.examples()
        for at in x[first : first + together].split(rows, dim=1):
            parts.append(_losses(part.objectives, at, inputs, targets, operations))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(x.shape[:2])


def _losses(
    objectives: Sequence[Stackable],
    x: Float[Tensor, "m q d"],
    inputs: Tensor,
    targets: Tensor,
    operations: AbstractContextManager[Any],
) -> Float[Tensor, " r"]:
    """Return the losses of some clients on their examples, at all their points."""
    points = x.shape[1]
    if points > 1:
        inputs, targets = (t.repeat_interleave(points, dim=0) for t in (inputs, targets))
    owned = [dict(each.module.named_buffers()) for each in objectives for _ in range(points)]
    buffers = {name: torch.stack([own[name] for own in owned]) for name in owned[0]}
    loss = torch.func.vmap(objectives[0].loss_of)
    flat, rest = x.flatten(0, 1), (buffers, inputs, targets)
    if not x.requires_grad:
        with operations:
            return loss(flat, *rest)
    with operations:
        at = flat.detach().requires_grad_(True)
        losses = loss(at, *rest)
        (slopes,) = torch.autograd.grad(losses, at, torch.ones_like(losses))
    told: Tensor = _WithGradients.apply(flat, losses.detach(), slopes)  # type: ignore[no-untyped-call]
    return told


class _WithGradients(torch.autograd.Function):
    """Losses of rows whose gradients are known."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "r d"],  # noqa: ARG004
        losses: Float[Tensor, " r"],
        slopes: Float[Tensor, "r d"],
    ) -> Float[Tensor, " r"]:
        ctx.save_for_backward(slopes)
        return losses.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, wanted: Float[Tensor, " r"]) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return wanted.unsqueeze(1) * slopes, None, None

"""Modules of equal structure as a cohort of nothing but tensors, which torch.compile takes.

The loss is that of fedzo.objectives.stacked_modules without what makes bits alike in any company: a
compiled program has its own rounding anyway.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.objectives.box import Bound
from fedzo.objectives.called_with import called_with
from fedzo.objectives.modules import ModuleObjective, trained_parameters

RowLoss = Callable[[Tensor, Mapping[str, Tensor], Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TracedModules:
    """Clients whose examples are stacked: inputs [n, m, ...], targets [n, m, ...]."""

    loss: RowLoss
    buffers: Mapping[str, Tensor]
    inputs: Tensor
    targets: Tensor
    dim: int
    lower: Bound
    upper: Bound
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def num_clients(self) -> int:
        return len(self.inputs)

    def value(self, x: Float[Tensor, "n 1 d"]) -> Float[Tensor, "n 1"]:
        rows = torch.func.vmap(self.loss)
        return rows(x.squeeze(1), self.buffers, self.inputs, self.targets).unsqueeze(1)

    def minibatch(self, indices: Int[Tensor, "n b"]) -> "TracedModules":
        client = torch.arange(len(indices), device=indices.device).unsqueeze(1)
        inputs, targets = self.inputs[client, indices], self.targets[client, indices]
        return replace(self, inputs=inputs, targets=targets)


def traced(
    objectives: Sequence[ModuleObjective], loss: RowLoss, used: Int[Tensor, "n b"] | None
) -> TracedModules:
    """Return modules of one structure on the examples that are used, all where that is None."""
    pairs = [(each.inputs, each.targets) for each in objectives]
    if used is not None:
        pairs = [(x[row], y[row]) for (x, y), row in zip(pairs, used, strict=True)]
    inputs, targets = zip(*pairs, strict=True)
    owned = [dict(each.module.named_buffers()) for each in objectives]
    return TracedModules(
        loss,
        {name: torch.stack([own[name] for own in owned]) for name in owned[0]},
        torch.stack(inputs),
        torch.stack(targets),
        objectives[0].dim,
        objectives[0].lower,
        objectives[0].upper,
    )


def row_loss(objective: ModuleObjective) -> RowLoss:
    """Return the loss of a row: a point [d], buffers, and the examples of one client.

    It holds a copy of the module, in the mode in which it is asked. Raises ConfigError for a module
    that cannot be copied.
    """
    try:
        module = copy.deepcopy(objective.module).eval()
    except Exception as error:
        raise ConfigError(
            f"client.compile=true needs modules that can be copied, and this one says {error!r};"
            " set it to false"
        ) from error
    trained = trained_parameters(module)
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    sizes, shapes = [p.numel() for p in trained], [p.shape for p in trained]
    loss, cast = objective.loss, objective.cast

    def of(x: Tensor, buffers: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        parts = zip(names, shapes, cast(x).split(sizes), strict=True)
        state = {name: part.reshape(shape) for name, shape, part in parts}
        outputs = called_with(module, {**state, **buffers}, inputs)
        return loss(outputs, targets).reshape(())

    return of

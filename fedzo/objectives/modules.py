"""A torch module and its data as an objective: x is what of the module is trained.

x is the concatenation of the parameters with `requires_grad`, in the order of `named_parameters()`,
each flattened; tied ones count once. Frozen parameters and buffers are no part of x: they stay as
they are, whatever is asked.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.config import require
from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.box import Bound, check_box
from fedzo.objectives.called_with import called_with
from fedzo.objectives.records import of_each
from fedzo.objectives.stacked_modules import Modules, Programs, losses_of

_LARGE, _FEW = 1 << 16, 4


@dataclass(frozen=True, slots=True)
class ModuleObjective:
    """The loss of a torch module on given data, as a function of its trainable parameters.

    The module computes in its own type, or in that of the inputs where no part of the module has
    it; x may have more digits. It runs in evaluation mode on copies of its buffers, so asking
    changes nothing. `loss(outputs, targets)` returns a scalar. Raises ConfigError where all
    parameters are frozen.
    """

    module: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    targets: Tensor
    lower: Bound = -float("inf")
    upper: Bound = float("inf")

    def __post_init__(self) -> None:
        if self.dim == 0:
            raise ConfigError(
                f"all parameters of the {type(self.module).__name__} are frozen, so there is"
                " nothing to optimize; call requires_grad_(True) on those that are to be trained"
            )
        for name, p in named_trained(self.module):
            if p.is_complex():
                raise ConfigError(
                    f"parameter {name!r} of the {type(self.module).__name__} is {p.dtype}, and x is"
                    " of real numbers; freeze it, or keep its real and imaginary part in one of"
                    " two (torch.view_as_real)"
                )
        for part in self.module.modules():
            if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None:
                require(
                    not part.weight.requires_grad,
                    f"max_norm of {type(part).__name__}",
                    part.max_norm,
                    "None: it writes into x whenever it is asked; shorten rows in the forward pass",
                )
        if len(self.inputs) != len(self.targets) or not len(self.inputs):
            raise ConfigError(
                f"{len(self.inputs)} inputs and {len(self.targets)} targets are no examples; give"
                " as many of both, and at least one"
            )
        low, high = check_box(self.dim, self.lower, self.upper)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    @property
    def dim(self) -> int:
        return sum(p.numel() for _, p in named_trained(self.module))

    @property
    def num_examples(self) -> int:
        return len(self.inputs)

    @property
    def initial_x(self) -> Float[Tensor, " d"] | None:
        """The module's own parameters, where a run may start; None where it has only shapes."""
        x = flatten_parameters(self.module)
        return None if x.is_meta else x

    def minibatch(self, indices: Tensor) -> "ModuleObjective":
        part = copy.copy(self)  # not replace(): what has been checked is as it was
        object.__setattr__(part, "inputs", self.inputs[indices])
        object.__setattr__(part, "targets", self.targets[indices])
        return part

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        points = x.reshape(1, -1, x.shape[-1])
        return losses_of(Modules([self]), points, Programs()).reshape(x.shape[:-1])

    def record_loss(self, x: Float[Tensor, " d"] | None, index: Tensor) -> Float[Tensor, ""]:
        """Return the loss of one example, whose number is a tensor without axes.

        Without x, at the module's own parameters.
        """
        row = index.unsqueeze(0)
        return self._loss(self._outputs(x, self.inputs[row]), self.targets[row])

    def record_losses(self, x: Float[Tensor, "q d"]) -> Float[Tensor, "q m"]:
        """Return the loss of every example at each point."""
        asks = [functools.partial(self.record_loss, row) for row in x]
        return torch.stack([of_each(ask, self.num_examples, x.device) for ask in asks])

    def own_record_losses(self) -> Float[Tensor, " m"]:
        """Return the loss of every example at the module's own parameters."""
        ask = functools.partial(self.record_loss, None)
        return of_each(ask, self.num_examples, self.inputs.device)

    def flipped(self) -> "ModuleObjective":
        """Return the objective with every label y turned into C - 1 - y, for C outputs."""
        if self.targets.is_floating_point():
            raise ConfigError("byzantine.attack=label_flip needs labels that are class numbers")
        x = torch.zeros(self.dim, device=self.inputs.device)
        classes = self._outputs(x, self.inputs[:1]).shape[-1]
        return replace(self, targets=classes - 1 - self.targets)

    def cast(self, x: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Return x in the type of the inputs, or as it is where those are not floating."""
        return x.to(self.inputs.dtype) if self.inputs.is_floating_point() else x

    @property
    def is_plain(self) -> bool:
        """Whether all parameters are trained, in at least single precision."""
        types = {p.dtype for p in self.module.parameters()} | {self.cast(torch.empty(0)).dtype}
        frozen = not all(p.requires_grad for p in self.module.parameters())
        return not frozen and types <= {torch.float32, torch.float64}

    def own_value(self) -> Float[Tensor, ""]:
        """Return the loss at the module's own parameters, of which no vector is made."""
        return self._loss(self._called(self._state(None), self.inputs), self.targets)

    def loss_at(self, x: Float[Tensor, " d"]) -> Float[Tensor, ""]:
        """Return the loss on all examples at one point, by a call of its own."""
        return self._loss(self._outputs(x, self.inputs), self.targets)

    def loss_of(
        self, x: Float[Tensor, " d"], buffers: Mapping[str, Tensor], inputs: Tensor, targets: Tensor
    ) -> Float[Tensor, ""]:
        """Return the loss at one point on given examples, with given buffers."""
        return self._loss(self._called(self._state(x, buffers), inputs), targets).reshape(())

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        told = self.loss(outputs, targets)
        if isinstance(told, Tensor) and told.numel() != 1:
            raise ObjectiveError(
                f"the loss returned {told.numel()} numbers; it must return one, such as their mean"
                " (reduction='mean')"
            )
        return told

    def _outputs(self, x: Float[Tensor, " d"] | None, inputs: Tensor) -> Tensor:
        return self._called(self._state(x), inputs)

    def _called(self, state: dict[str, Tensor], inputs: Tensor) -> Tensor:
        modes = {part: part.training for part in self.module.modules()}
        self.module.eval()
        try:
            outputs: Tensor = called_with(self.module, state, inputs)
        finally:
            for part, mode in modes.items():
                part.training = mode
        return outputs

    def _state(
        self, x: Float[Tensor, " d"] | None, given: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return all parameters and buffers at x, in the types in which the module computes.

        Without x, at the module's own; given: buffers instead of its own.
        """
        parameters = dict(self.module.named_parameters())
        buffers = dict(self.module.named_buffers())
        own = {**parameters, **buffers}
        wanted = self._type(x, {tensor.dtype for tensor in own.values()})
        now = {**own, **(given or {})}
        if x is not None:
            now |= unflatten_parameters(self.module, x)
        for name, before in own.items():
            kind = wanted if wanted and before.is_floating_point() else before.dtype
            now[name] = now[name].to(kind, copy=name in buffers)
        return now

    def _type(self, x: Tensor | None, own: set[torch.dtype]) -> torch.dtype | None:
        """Return the type of all that the module computes with; None for each its own."""
        if self.inputs.is_floating_point():
            return None if self.inputs.dtype in own else self.inputs.dtype
        return x.dtype if x is not None and x.dtype == torch.float64 else None


def named_trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Return the named parameters that x is made of, in its order."""
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)


def examples_at_once(inputs: Tensor, usual: int) -> int:
    """Return how many examples [n, ...] a module is asked about at a time: the usual number.

    On a CPU four of more than 65,536 numbers: what it computes for 27 photographs is fetched from
    the system anew each time, which takes twice as long as the computing (docs/results/attacks.md).
    """
    large = inputs.device.type == "cpu" and inputs.shape[1:].numel() > _LARGE
    return min(usual, _FEW) if large else usual


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that x is made of, in its order, where they are."""
    return [p for _, p in named_trained(module)]


def flatten_parameters(module: nn.Module) -> Float[Tensor, " d"]:
    """Return a copy of the trained parameters as one vector; empty where all are frozen."""
    parts = [p.detach().reshape(-1) for _, p in named_trained(module)]
    return torch.cat(parts) if parts else torch.empty(0)


def unflatten_parameters(module: nn.Module, x: Float[Tensor, " d"]) -> dict[str, Tensor]:
    """Cut a vector into the trained parameters' shapes, by name; gradients flow through.

    Raises ConfigError for a vector of another length.
    """
    named = dict(named_trained(module))
    sizes = [p.numel() for p in named.values()]
    if len(x) != sum(sizes):
        raise ConfigError(
            f"x has {len(x)} numbers and the module trains {sum(sizes)}; leave out frozen"
            " parameters and buffers"
        )
    pairs = zip(named.items(), x.split(sizes), strict=True)
    return {name: part.reshape(p.shape) for (name, p), part in pairs}


def restore_parameters(module: nn.Module, x: Float[Tensor, " d"]) -> None:
    """Write a vector back into the trained parameters of a module, in the types that they have."""
    parts = unflatten_parameters(module, x)
    with torch.no_grad():
        for name, p in named_trained(module):
            p.copy_(parts[name])

"""Calls of layers in a forward pass: what was read there, and derivatives at their outputs.

    S_i  = [g_l o xi_il over all calls l]                               the row of example i
    delta_il = g_l o f_il + r_i xi_il        f: fed back, r: what the probe says beyond f

Noise that is shared by the T tokens of an example (or the positions of a convolution) tells the sum
over them alone; each gets 1/T of it, and the row holds the mean of g. A chained layer k, which l
reads through an elementwise function alone, is not perturbed: delta_k = g_k o (delta_l W_l).
Shapes: xi [b, ..., n] or, by convolutions, [b, n, ...], with 1 for each token axis that is shared;
S and f [b, N], r [b].
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.config import require
from fedzo.errors import ObjectiveError
from fedzo.finetuning.activity.layers import parameter_gradients


@dataclass(slots=True)
class Call:
    """One call of a layer: its inputs, the shape of its outputs, and what was added to those."""

    name: str
    layer: nn.Module
    inputs: Tensor
    shape: torch.Size
    shared: tuple[int, ...]
    noise: Tensor | None = None
    gate: Tensor | None = None
    is_head: bool = False
    reader: int | None = None
    version: int = 0

    @property
    def is_perturbed(self) -> bool:
        """Whether it is neither the head nor chained to the call at the place `reader`."""
        return not self.is_head and self.reader is None

    @property
    def grain(self) -> torch.Size:
        """The shape of the noise: shared axes have length 1."""
        return torch.Size(1 if i in self.shared else n for i, n in enumerate(self.shape))

    @property
    def width(self) -> int:
        """Numbers of noise an example."""
        return math.prod(self.grain[1:])

    @property
    def spread(self) -> int:
        """T, how many places share a number of noise."""
        return math.prod(self.shape[i] for i in self.shared)

    def row(self) -> Float[Tensor, "b w"]:
        """Return the part of S that belongs to this call."""
        assert self.noise is not None
        if self.gate is None:
            return self.noise.flatten(1).float()
        gate = self.gate.mean(self.shared, keepdim=True) if self.shared else self.gate
        return (gate * self.noise).flatten(1).float()

    def delta(
        self, fed: Float[Tensor, "b w"] | None, residual: Float[Tensor, " b"] | None
    ) -> Tensor:
        """Return the derivative at the outputs, times what an example's loss counts."""
        total = torch.zeros((), device=self.inputs.device)
        if fed is not None:
            total = fed.view(self.grain)
            if self.gate is not None:
                total = self.gate * total
        if residual is not None:
            assert self.noise is not None
            total = total + residual.view(-1, *[1] * (len(self.shape) - 1)) * self.noise
        return total / self.spread if self.shared else total

    def chained(self, read: nn.Module, delta: Tensor) -> Tensor:
        """Return the derivative here for that at the outputs of the layer that reads this one."""
        assert isinstance(read, nn.Linear)
        own = delta @ read.weight.to(delta.dtype)
        return own if self.gate is None else self.gate * own

    def gradients(self, delta: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Return what the layer's parameters get; raises ObjectiveError where inputs are gone."""
        if version_of(self.inputs) != self.version:
            raise ObjectiveError(
                f"what the layer {self.name!r} read was overwritten later in the forward pass, so"
                " its gradient is lost; make the operation after it work out of place"
            )
        kind = self.inputs.dtype if self.inputs.is_floating_point() else delta.dtype
        return parameter_gradients(self.layer, self.inputs, delta.to(kind), self.shape)


def require_examples(name: str, shape: torch.Size, examples: int) -> None:
    """Raise ConfigError where what a site gives has no row for each example."""
    require(
        shape[:1] == (examples,),
        f"outputs of site {name!r}",
        tuple(shape),
        f"of one row for each of the {examples} examples along axis 0; leave this layer out by"
        " sites=[...], or freeze it",
    )


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written; 0 where torch does not count."""
    return 0 if tensor.is_inference() else tensor._version


def rows(calls: Sequence[Call]) -> Float[Tensor, "b N"]:
    """Return S."""
    parts = [call.row() for call in calls if call.is_perturbed]
    return torch.cat(parts, dim=1) if parts else torch.zeros(calls[0].shape[0], 0)


def widths(calls: Sequence[Call]) -> tuple[int, ...]:
    """Return how many numbers of an example are perturbed at each call."""
    return tuple(call.width for call in calls if call.is_perturbed)


def write_gradients(
    calls: Sequence[Call],
    head: Float[Tensor, "b C"],
    fed: Float[Tensor, "b N"] | None,
    residual: Float[Tensor, " b"] | None,
) -> None:
    """Set `.grad` of the layers' trained parameters, from derivatives of each example's share.

    head: the derivative at the outputs, which is exact. Calls that share a parameter add up.
    """
    written: set[nn.Parameter] = set()
    for call, delta in zip(calls, _deltas(calls, head, fed, residual), strict=True):
        for parameter, gradient in call.gradients(delta):
            gradient = gradient.to(parameter.dtype)
            if parameter in written:
                assert parameter.grad is not None
                parameter.grad.add_(gradient)
            else:
                parameter.grad = gradient
                written.add(parameter)


def _deltas(
    calls: Sequence[Call],
    head: Float[Tensor, "b C"],
    fed: Float[Tensor, "b N"] | None,
    residual: Float[Tensor, " b"] | None,
) -> list[Tensor]:
    """Return the derivative at the outputs of each call: who reads is called after who is read."""
    parts = list(fed.split(widths(calls), dim=1)) if fed is not None else []
    deltas: dict[int, Tensor] = {}
    for place in reversed(range(len(calls))):
        call = calls[place]
        if call.reader is not None:
            deltas[place] = call.chained(calls[call.reader].layer, deltas[call.reader])
        elif call.is_head:
            deltas[place] = head.view(call.shape)
        else:
            deltas[place] = call.delta(parts.pop() if parts else None, residual)
    return [deltas[place] for place in range(len(calls))]

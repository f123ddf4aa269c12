"""What forward passes have told about a batch: outputs, losses, and their derivative there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.finetuning.activity.calls import Call, require_examples

Losses = Callable[[Tensor, Tensor], Tensor]
"""The loss of each example [b], for outputs and targets."""


@dataclass(slots=True)
class Heard:
    """The sites' calls, dz where there was noise, and each example's loss."""

    calls: list[Call]
    response: Float[Tensor, "b C"] | None
    losses: Float[Tensor, " b"]
    e: Float[Tensor, "b C"]
    """d l_i / d z_i."""

    @property
    def is_finite(self) -> bool:
        told = (self.losses, self.e, self.response)
        return all(bool(part.isfinite().all()) for part in told if part is not None)


def judged(
    losses_of: Losses, calls: list[Call], z: Tensor, response: Tensor | None, targets: Tensor
) -> Heard:
    """Return what outputs and targets say; raises ConfigError for losses of another shape."""
    for call in calls:
        require_examples(call.name, call.shape, len(z))
    held = isinstance(targets, Tensor) and targets.is_inference()
    targets = targets.clone() if held else targets
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        losses = losses_of(z, targets)
        require(
            losses.shape == z.shape[:1],
            "losses",
            tuple(losses.shape),
            f"one number for each of the {len(z)} examples, as with reduction='none'",
        )
        require(
            losses.requires_grad, "losses", "constant", "differentiable in the module's outputs"
        )
        [e] = torch.autograd.grad(losses.sum(), z)
    flat = response.reshape(len(z), -1).float() if response is not None else None
    return Heard(calls, flat, losses.detach(), e.reshape(len(z), -1).float())

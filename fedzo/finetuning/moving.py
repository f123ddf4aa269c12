"""How x is moved along an estimate: in place without a gradient, or by any optimizer of torch.

    InPlaceSGD         x <- x - lr g                                  nothing of size d is held
    ReplayedMomentum   x <- x - lr sum_{a < w} beta^a g_{t - a}       w estimates: keys and numbers
    ByTorch            p.grad = g, and a step of torch.optim          g, and what that holds

Momentum by replay is the heavy ball of torch.optim.SGD but for terms older than w steps, which are
beta^w of what they were (w = 64, beta = 0.9: 0.1 %). Cost: drawing w times the directions.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.estimation.estimate import Estimate
from fedzo.estimation.packed import unpacked
from fedzo.estimation.place import Term, add_terms_
from fedzo.estimation.view import View

_LEAST_HALF = 1e-4
"""An eps of Adam that makes up for squares which are 0 in float16."""
OptimizerFactory = Callable[[Sequence[Tensor]], torch.optim.Optimizer]


@runtime_checkable
class Mover(Protocol):
    """Moves x along estimates."""

    def move(self, view: View, estimate: Estimate, lr: float) -> None:
        """Go a step."""
        ...


class InPlaceSGD:
    """Plain steps, added in one go."""

    def move(self, view: View, estimate: Estimate, lr: float) -> None:
        add_terms_(view, estimate.terms(-lr))


class ReplayedMomentum:
    """Heavy-ball steps of which only the estimates are remembered."""

    def __init__(self, beta: float = 0.9, window: int = 64) -> None:
        self._beta = beta
        self._held: deque[Estimate] = deque(maxlen=window)

    def move(self, view: View, estimate: Estimate, lr: float) -> None:
        keys = [unpacked(u) for u in estimate.keys]
        self._held.appendleft(Estimate(keys, estimate.coefficients))
        terms: list[Term] = []
        for age, held in enumerate(self._held):
            terms += held.terms(-lr * self._beta**age)
        add_terms_(view, terms)


class ByTorch:
    """Steps of an optimizer of torch, to which the estimate is the gradient.

    change: what is made of the gradients first, in place.
    """

    def __init__(
        self,
        view: View,
        make: OptimizerFactory,
        change: Callable[[View], None] | None = None,
    ) -> None:
        self.inner = make(list(view.tensors))
        self._change = change

    def move(self, view: View, estimate: Estimate, lr: float) -> None:
        gradients = tuple(torch.zeros_like(tensor) for tensor in view.tensors)
        of_gradients = View(view.names, gradients, view.firsts, view.total)
        estimate.add_to_(of_gradients, 1.0)
        if self._change is not None:
            self._change(of_gradients)
        before = [tensor.grad for tensor in view.tensors]
        for tensor, gradient in zip(view.tensors, gradients, strict=True):
            tensor.grad = gradient
        for group in self.inner.param_groups:
            group["lr"] = lr
        self.inner.step()
        for tensor, own in zip(view.tensors, before, strict=True):
            tensor.grad = own


def named_optimizer(name: str, **settings: Any) -> OptimizerFactory:
    """Return a factory of an optimizer of torch.optim.

    It raises ConfigError for kinds of Adam in float16, whose eps is too small there.
    """
    made: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, name)

    def make(tensors: Sequence[Tensor]) -> torch.optim.Optimizer:
        half = any(tensor.dtype == torch.float16 for tensor in tensors)
        eps = float(settings.get("eps", 1e-8))
        if half and name.startswith("Adam") and eps < _LEAST_HALF:
            raise ConfigError(
                "Adam's moments have the type of the parameters, and in float16 small squares are 0"
                f" and eps={eps:g} too little to divide by; use bfloat16 or float32, or a method"
                " without Adam, such as zo_sgd"
            )
        return made(tensors, lr=1.0, **settings)

    return make

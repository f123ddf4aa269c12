"""Zeroth order for the first parts of a network, first order for the last.

    x_first  <- x_first - lr g_zo            values of the loss alone
    x_last   <- a step of torch.optim        backpropagation through the last parts

Zhang et al., "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A
Benchmark", ICML 2024 (hybrid). Both see x as it was before the step. Activations are
kept for the last parts alone, for autograd stops where no parameter asks for a gradient. Cost: the
method's forward passes, one more, and one backward pass through the last parts.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fedzo.config import Scalar
from fedzo.errors import ConfigError, ObjectiveError
from fedzo.estimation.losses import one_number
from fedzo.estimation.view import View
from fedzo.finetuning.methods.method import Method
from fedzo.finetuning.moving import OptimizerFactory
from fedzo.finetuning.zeroth_order import ZerothOrder


class HybridZO:
    """Trains a module by both at once.

        optimizer = HybridZO(model, 1e-4, last="head", make=lambda p: torch.optim.AdamW(p, 1e-3))
        loss = optimizer.step(lambda: F.cross_entropy(model(x), y))

    last: patterns of names of what backpropagation trains; all else is trained by values, at lr.
    make: torch's optimizer for it. method, settings, seed: as of ZerothOrder. Raises ConfigError
    where nothing is left for one of them.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float,
        *,
        last: str | Sequence[str],
        make: OptimizerFactory,
        method: str | Method = "zo_sgd",
        settings: Mapping[str, Scalar] | None = None,
        seed: int = 0,
    ) -> None:
        whole = View.of_module(module)
        chosen = whole.select(*([last] if isinstance(last, str) else last))
        first = [name for name in whole.names if name not in chosen.names]
        if not first:
            raise ConfigError(f"last={last!r} is the whole module; use torch's optimizer alone")
        self.zeroth = ZerothOrder(
            module, lr, method=method, settings=settings, view=first, seed=seed
        )
        self._last = list(chosen.tensors)
        self.first_order = make(self._last)

    def step(
        self, closure: Callable[[], Tensor], *, full: Callable[[], Tensor] | None = None
    ) -> float:
        """Take a step of both, and return the loss before it.

        full: the loss on all examples, for methods that ask for it. Backpropagation of what is not
        finite moves nothing. Raises ObjectiveError for a loss that cannot be differentiated.
        """
        first = self.zeroth.view.tensors
        for tensor in first:
            tensor.requires_grad_(False)
        try:
            with torch.enable_grad():
                loss = _differentiable(closure())
                gradients = torch.autograd.grad(loss, self._last, allow_unused=True)
        finally:
            for tensor in first:
                tensor.requires_grad_(True)
        self.zeroth.step(closure, full=full)
        known = [each for each in gradients if each is not None]
        if not all(bool(each.isfinite().all()) for each in (loss, *known)):
            return float(loss.detach())
        held = [tensor.grad for tensor in self._last]
        for tensor, gradient in zip(self._last, gradients, strict=True):
            tensor.grad = gradient
        self.first_order.step()
        for tensor, own in zip(self._last, held, strict=True):
            tensor.grad = own
        return float(loss.detach())


def _differentiable(loss: object) -> Tensor:
    """Return a loss; raises ObjectiveError for one that is no tensor with a gradient."""
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise ObjectiveError(
            f"the closure returned {loss!r:.60}, which has no gradient for the last parts; return"
            " the loss as the tensor that it is, without item() or no_grad"
        )
    return one_number(loss).reshape(())

"""SGD, Adam, Lion, diffGrad, AdaGrad and AdaHessian on plain tensors with explicit state.

    sgd:       v <- momentum v + g;                    x <- x - lr v
    adam:      m <- b1 m + (1-b1) g, s <- b2 s + (1-b2) g^2;
               x <- x - lr (m / (1-b1^t)) / (sqrt(s / (1-b2^t)) + eps)
    lion:      x <- x - lr sign(b1 m + (1-b1) g);      m <- b2 m + (1-b2) g
    diffgrad:  as adam, with m / (1 + exp(-|g_(t-1) - g|)) in the place of m;  g_0 = 0
    adagrad:   s <- s + g^2;    x <- x - lr g / (sqrt(s) + eps);   adagrad_norm: s <- s + |g|^2
    adahessian: adam whose steps are told D, D^2 in the place of g^2;  D the diagonal of the Hessian
    microadam: clients.core.micro_adam

Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1; Chen et al.,
"Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, algorithm 2 (without weight decay);
Dubey et al., "diffGrad", IEEE TNNLS 2020; Duchi, Hazan & Singer, "Adaptive Subgradient Methods",
JMLR 2011, and with one number for all coordinates Ward, Wu & Bottou, "AdaGrad Stepsizes", JMLR 2020
(with `strategy.norm_test` these are AdAdaGrad's: Lau, Liu & Kolar, arXiv 2402.11215); SGD with
momentum as in torch.optim.SGD (dampening 0); Yao et al., "AdaHessian", AAAI 2021, algorithm 1 with
Hessian power 1, where D comes from clients.core.curvature. Row by row, so x may be [d] (a server)
or [n, d] (a cohort). State is replaced, never changed in place:
`state, x = optimizer.step(state, x, gradient, lr)`.

diffGrad differs from its authors' first code, where the last gradient was this one (their issue 2).
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import check_types, require_nonnegative
from fedzo.errors import ConfigError

OptimizerName = Literal["sgd", "adam", "lion", "diffgrad", "adagrad", "adagrad_norm"]
LocalOptimizerName = Literal[OptimizerName, "adahessian", "microadam"]
"""Those of clients with gradients too."""
WITH_MOMENTUM = ("sgd", "adam", "lion", "diffgrad")
"""Optimizers of which `momentum` is the heavy-ball factor, or beta1."""
CURVATURE_EPS = 1e-4
"""AdaHessian's eps, ours: without curvature a coordinate moves by lr g / eps."""


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """Steps taken and the moments; an unused moment has no elements."""

    count: int
    first: Tensor
    second: Tensor


@runtime_checkable
class Optimizer(Protocol):
    """A first-order rule with explicit state."""

    def init(self, x: Float[Tensor, "*n d"]) -> OptimizerState:
        """Return the state before the first step."""
        ...

    def step(
        self,
        state: OptimizerState,
        x: Float[Tensor, "*n d"],
        gradient: Float[Tensor, "*n d"],
        lr: float,
    ) -> tuple[OptimizerState, Float[Tensor, "*n d"]]:
        """Return the next state and the next x."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with heavy-ball momentum."""

    momentum: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        _require_fraction("momentum", self.momentum)

    def init(self, x: Float[Tensor, "*n d"]) -> OptimizerState:
        velocity = torch.zeros_like(x) if self.momentum else x.new_empty(0)
        return OptimizerState(0, velocity, x.new_empty(0))

    def step(
        self,
        state: OptimizerState,
        x: Float[Tensor, "*n d"],
        gradient: Float[Tensor, "*n d"],
        lr: float,
    ) -> tuple[OptimizerState, Float[Tensor, "*n d"]]:
        if not self.momentum:
            return OptimizerState(state.count + 1, state.first, state.second), torch.sub(
                x, gradient, alpha=lr
            )
        velocity = self.momentum * state.first + gradient
        return OptimizerState(state.count + 1, velocity, state.second), torch.sub(
            x, velocity, alpha=lr
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """Adam with bias correction."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_types(self)
        _require_fraction("beta1", self.beta1)
        _require_fraction("beta2", self.beta2)
        require_nonnegative("eps", self.eps)

    def init(self, x: Float[Tensor, "*n d"]) -> OptimizerState:
        return OptimizerState(0, torch.zeros_like(x), torch.zeros_like(x))

    def step(
        self,
        state: OptimizerState,
        x: Float[Tensor, "*n d"],
        gradient: Float[Tensor, "*n d"],
        lr: float,
        scale_of: Float[Tensor, "*n d"] | None = None,
    ) -> tuple[OptimizerState, Float[Tensor, "*n d"]]:
        """Return the next state and x; scale_of: whose squares scale the step, not g's."""
        count = state.count + 1
        first = state.first.lerp(gradient, 1 - self.beta1)
        size = gradient if scale_of is None else scale_of
        second = (self.beta2 * state.second).addcmul(size, size, value=1 - self.beta2)
        scale = (second / (1 - self.beta2**count)).sqrt_().add_(self.eps)
        moved = torch.addcdiv(x, first, scale, value=-lr / (1 - self.beta1**count))
        return OptimizerState(count, first, second), moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Lion:
    """Steps of one size in every coordinate: signs of a momentum."""

    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        check_types(self)
        _require_fraction("beta1", self.beta1)
        _require_fraction("beta2", self.beta2)

    def init(self, x: Float[Tensor, "*n d"]) -> OptimizerState:
        return OptimizerState(0, torch.zeros_like(x), x.new_empty(0))

    def step(
        self,
        state: OptimizerState,
        x: Float[Tensor, "*n d"],
        gradient: Float[Tensor, "*n d"],
        lr: float,
    ) -> tuple[OptimizerState, Float[Tensor, "*n d"]]:
        ahead = state.first.lerp(gradient, 1 - self.beta1)
        moment = state.first.lerp(gradient, 1 - self.beta2)
        moved = torch.sub(x, ahead.sign(), alpha=lr)
        return OptimizerState(state.count + 1, moment, state.second), moved


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffGrad:
    """Adam, slower where the gradient stands still.

    The second moment of its state is [2, *n, d]: that of Adam, and the last gradient.
    """

    adam: Adam = field(default_factory=Adam)

    def init(self, x: Float[Tensor, "*n d"]) -> OptimizerState:
        return OptimizerState(0, torch.zeros_like(x), torch.zeros_like(x).expand(2, *x.shape))

    def step(
        self,
        state: OptimizerState,
        x: Float[Tensor, "*n d"],
        gradient: Float[Tensor, "*n d"],
        lr: float,
    ) -> tuple[OptimizerState, Float[Tensor, "*n d"]]:
        square, last = state.second
        own = OptimizerState(state.count, state.first, square)
        after, moved = self.adam.step(own, x, gradient, lr)
        friction = (last - gradient).abs().sigmoid()
        second = torch.stack([after.second, gradient])
        return OptimizerState(after.count, after.first, second), x + friction * (moved - x)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaGrad:
    """Steps that shrink with all gradients so far; norm: by one number for all coordinates."""

    norm: bool = False
    eps: float = 1e-10

    def __post_init__(self) -> None:
        check_types(self)
        require_nonnegative("eps", self.eps)

    def init(self, x: Float[Tensor, "*n d"]) -> OptimizerState:
        return OptimizerState(0, x.new_empty(0), torch.zeros_like(x[..., :1] if self.norm else x))

    def step(
        self,
        state: OptimizerState,
        x: Float[Tensor, "*n d"],
        gradient: Float[Tensor, "*n d"],
        lr: float,
    ) -> tuple[OptimizerState, Float[Tensor, "*n d"]]:
        square = gradient.square()
        second = state.second + (square.sum(-1, keepdim=True) if self.norm else square)
        moved = torch.addcdiv(x, gradient, second.sqrt() + self.eps, value=-lr)
        return OptimizerState(state.count + 1, state.first, second), moved


@lru_cache(maxsize=64)
def make_optimizer(name: OptimizerName, *, momentum: float = 0.0) -> Optimizer:
    """Return the optimizer of that name; `momentum` is the heavy-ball factor, or beta1 of others.

    With momentum 0 these keep their usual beta1 of 0.9; AdaGrad has none.
    """
    if name == "sgd":
        return SGD(momentum=momentum)
    if name in ("adagrad", "adagrad_norm"):
        return AdaGrad(norm=name == "adagrad_norm")
    if name == "lion":
        return Lion(beta1=momentum or 0.9)
    adam = Adam(beta1=momentum or 0.9)
    return adam if name == "adam" else DiffGrad(adam=adam)


def _require_fraction(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise ConfigError(f"{name}={value} must be at least 0 and below 1")

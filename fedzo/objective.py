"""What a client can ask: the objective, and adapters that make one.

An objective maps points x [..., d] to values [...]; fedzo minimizes. It may be a black box. If its
value is differentiable by torch, first-order clients can use it too; nothing else marks the two.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fedzo.config import require
from fedzo.errors import ConfigError, ObjectiveError

Bound = float | Tensor | NDArray[np.float64]
_RECORDS = 512
"""Examples whose losses are computed at once, one by one."""


def check_box(dim: int, lower: object, upper: object) -> tuple[Bound, Bound]:
    """Return bounds as numbers or tensors [d]; arrays are welcome.

    Raises ConfigError for dim below 1 and for a box that is empty or of another size.
    """
    require(dim >= 1, "dim", dim, "at least 1")
    low, high = _bound("lower", lower, dim), _bound("upper", upper, dim)
    if bool((torch.as_tensor(low) > torch.as_tensor(high)).any()):
        raise ConfigError(f"lower={low} exceeds upper={high}: the box is empty; swap them")
    return low, high


def _bound(name: str, value: object, dim: int) -> Bound:
    if isinstance(value, int | float):
        return float(value)
    bound = torch.as_tensor(np.asarray(value, dtype=np.float64))
    if bound.shape not in ((), (dim,)):
        raise ConfigError(f"{name} has shape {tuple(bound.shape)}; give one number or {dim}")
    return float(bound) if bound.dim() == 0 else bound


@runtime_checkable
class Objective(Protocol):
    """A function of `dim` variables inside the box [lower, upper] (numbers, or [d])."""

    @property
    def dim(self) -> int: ...

    @property
    def lower(self) -> Bound: ...

    @property
    def upper(self) -> Bound: ...

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return the objective at each point."""
        ...


@runtime_checkable
class FiniteSum(Objective, Protocol):
    """An objective that is the mean over `num_examples` examples."""

    @property
    def num_examples(self) -> int: ...

    def minibatch(self, indices: Tensor) -> Objective:
        """Return the mean over the examples with these indices [b]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallableObjective:
    """A Python function as an objective.

    `function` gets one point as a float64 array [d] and returns a number; with `batched=True` it
    gets all points [q, d] and returns their values [q]. It never sees fedzo's own memory.
    """

    function: Callable[[NDArray[np.float64]], Any]
    dim: int
    lower: Bound = -math.inf
    upper: Bound = math.inf
    batched: bool = False

    def __post_init__(self) -> None:
        low, high = check_box(self.dim, self.lower, self.upper)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Call the function; raises ObjectiveError unless it returns one number a point."""
        points = x.detach().cpu().double().reshape(-1, self.dim).numpy().copy()
        answers = self.function(points) if self.batched else list(self._answers(points))
        try:
            values = np.array([float(answer) for answer in answers]).reshape(len(points))
        except (TypeError, ValueError) as error:
            raise ObjectiveError(
                f"the function returned {answers!r:.80} for {len(points)} points of dim {self.dim};"
                " return one real number a point"
            ) from error
        return torch.from_numpy(values).to(x).reshape(x.shape[:-1])

    def _answers(self, points: NDArray[np.float64]) -> Iterator[Any]:
        """Ask point after point; an exception says how many were asked."""
        for number, point in enumerate(points, start=1):
            try:
                yield self.function(point)
            except BaseException as error:
                error.points_asked = number  # type: ignore[attr-defined]
                raise


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchObjective:
    """A torch function of points [..., d] with values [...]; differentiable if the function is."""

    function: Callable[[Tensor], Tensor]
    dim: int
    lower: Bound = -math.inf
    upper: Bound = math.inf

    def __post_init__(self) -> None:
        low, high = check_box(self.dim, self.lower, self.upper)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return self.function(x)


@dataclass(frozen=True, slots=True)
class ModuleObjective:
    """The loss of a torch module on given data, as a function of its flat parameter vector.

    x is the concatenation of `module.named_parameters()`, each flattened, and is turned into the
    inputs' type where that is another floating one. The module runs in evaluation mode with frozen
    buffers, so asking changes nothing. `loss(outputs, targets)` returns a scalar.
    """

    module: torch.nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    targets: Tensor
    lower: Bound = -math.inf
    upper: Bound = math.inf

    @property
    def dim(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    @property
    def num_examples(self) -> int:
        return len(self.inputs)

    @property
    def initial_x(self) -> Float[Tensor, " d"] | None:
        """The module's own parameters, where a run may start; None where it has only shapes."""
        x = flatten_parameters(self.module)
        return None if x.is_meta else x

    def minibatch(self, indices: Tensor) -> "ModuleObjective":
        return ModuleObjective(
            self.module,
            self.loss,
            self.inputs[indices],
            self.targets[indices],
            self.lower,
            self.upper,
        )

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        rows = [self._loss(row) for row in x.reshape(-1, x.shape[-1])]
        return torch.stack(rows).reshape(x.shape[:-1])

    def record_loss(self, x: Float[Tensor, " d"], index: Tensor) -> Float[Tensor, ""]:
        """Return the loss of one example, whose number is a tensor without axes."""
        row = index.unsqueeze(0)
        return self.loss(self._outputs(x, self.inputs[row]), self.targets[row])

    def record_losses(self, x: Float[Tensor, "q d"]) -> Float[Tensor, "q m"]:
        """Return the loss of every example at each point."""
        each = torch.func.vmap(self.record_loss, in_dims=(None, 0), chunk_size=_RECORDS)
        index = torch.arange(self.num_examples, device=x.device)
        return torch.stack([each(row, index) for row in x])

    def flipped(self) -> "ModuleObjective":
        """Return the objective with every label y turned into C - 1 - y, for C outputs."""
        if self.targets.is_floating_point():
            raise ConfigError("byzantine.attack=label_flip needs labels that are class numbers")
        classes = self._outputs(self.inputs.new_zeros(self.dim), self.inputs[:1]).shape[-1]
        return replace(self, targets=classes - 1 - self.targets)

    def _loss(self, x: Float[Tensor, " d"]) -> Float[Tensor, ""]:
        return self.loss(self._outputs(x, self.inputs), self.targets)

    def cast(self, x: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Return x in the type of the inputs, or as it is where those are not floating."""
        return x.to(self.inputs.dtype) if self.inputs.is_floating_point() else x

    def _outputs(self, x: Float[Tensor, " d"], inputs: Tensor) -> Tensor:
        state = unflatten_parameters(self.module, self.cast(x))
        modes = {part: part.training for part in self.module.modules()}
        self.module.eval()
        try:
            outputs: Tensor = torch.func.functional_call(self.module, state, (inputs,))
        finally:
            for part, mode in modes.items():
                part.training = mode
        return outputs


def flatten_parameters(module: torch.nn.Module) -> Float[Tensor, " d"]:
    """Return a copy of the parameters as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def unflatten_parameters(module: torch.nn.Module, x: Float[Tensor, " d"]) -> dict[str, Tensor]:
    """Cut a vector into named parameters of the module's shapes; gradients flow through."""
    named = dict(module.named_parameters())
    parts = x.split([p.numel() for p in named.values()])
    pairs = zip(named.items(), parts, strict=True)
    return {name: part.reshape(p.shape) for (name, p), part in pairs}


@dataclass(frozen=True, slots=True)
class Maximize:
    """The negative of an objective that someone wants to maximize."""

    objective: Objective

    @property
    def dim(self) -> int:
        return self.objective.dim

    @property
    def lower(self) -> Bound:
        return self.objective.lower

    @property
    def upper(self) -> Bound:
        return self.objective.upper

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return -self.objective.value(x)

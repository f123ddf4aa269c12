"""The box that points are kept in, and starts inside it.

A start is a vector of float32 or float64 on the CPU: arrays, lists and whole numbers become
float64, half types float32, because optimizers need more digits than a model in half precision has.
"""

import math
import warnings
from typing import Protocol, TypeGuard, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fedzo.config import require
from fedzo.errors import ConfigError, FedzoWarning

Bound = float | Tensor | NDArray[np.float64]
_NEAR = 1e-6
"""How far apart, in shares of them, bounds are the same: some are told in float32."""


@runtime_checkable
class Boxed(Protocol):
    """Whatever keeps x in a box."""

    @property
    def lower(self) -> Bound: ...

    @property
    def upper(self) -> Bound: ...


def check_box(dim: int, lower: object, upper: object) -> tuple[Bound, Bound]:
    """Return bounds as numbers or tensors [d]; arrays are welcome.

    Raises ConfigError for dim below 1 and for a box that is empty, of another size, or no box.
    """
    whole = isinstance(dim, int | np.integer) and not isinstance(dim, bool)
    require(whole and dim >= 1, "dim", dim, "at least 1, and whole")
    low, high = _bound("lower", lower, dim), _bound("upper", upper, dim)
    ends = torch.as_tensor(low), torch.as_tensor(high)
    if bool((ends[0] > ends[1]).any()):
        raise ConfigError(f"lower={low} exceeds upper={high}: the box is empty; swap them")
    if bool((ends[0] == math.inf).any() or (ends[1] == -math.inf).any()):
        raise ConfigError(
            f"lower={low}, upper={high}: no number lies between; lower must be below inf and upper"
            " above -inf"
        )
    return low, high


def _bound(name: str, value: object, dim: int) -> Bound:
    given: object = value.detach().cpu().double() if _is_real(value) else value
    try:
        array = np.asarray(given)
        bound = torch.as_tensor(array.astype(np.float64)) if array.dtype.kind in "iuf" else None
    except (TypeError, ValueError, RuntimeError):
        bound = None
    if bound is None:
        raise ConfigError(f"{name}={value!r:.60} must be a real number, or {dim} of them")
    if bound.shape not in ((), (dim,)):
        raise ConfigError(f"{name} has shape {tuple(bound.shape)}; give one number or {dim}")
    if bool(bound.isnan().any()):
        raise ConfigError(f"{name}={value!r:.60} holds NaN; -inf and inf stand for no bound")
    return float(bound) if bound.dim() == 0 else bound


def _is_real(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and not (value.is_complex() or value.dtype == torch.bool)


def project(x: Float[Tensor, "*n d"], lower: Bound, upper: Bound) -> Float[Tensor, "*n d"]:
    """Project points onto the box; returns x itself when there is no bound."""
    if not is_bounded(lower, upper):
        return x
    low, high = (torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in (lower, upper))
    return x.clamp(low, high)


def same_box(one: Boxed, other: Boxed) -> bool:
    """Return whether two have the same bounds of x."""
    pairs = _ends(one, other)
    return pairs is not None and all(bool(torch.isclose(a, b, _NEAR).all()) for a, b in pairs)


def holds_box(outer: Boxed, inner: Boxed) -> bool:
    """Return whether one's bounds of x allow all that another's do."""
    pairs = _ends(outer, inner)
    if pairs is None:
        return False
    (low, lowest), (high, highest) = pairs
    below = (low <= lowest) | torch.isclose(low, lowest, _NEAR)
    above = (high >= highest) | torch.isclose(high, highest, _NEAR)
    return bool(below.all()) and bool(above.all())


def _ends(one: Boxed, other: Boxed) -> list[tuple[Tensor, Tensor]] | None:
    """Return both lower bounds, and both upper ones; None where they are of different size."""
    pairs = ((one.lower, other.lower), (one.upper, other.upper))
    ends = [tuple(torch.as_tensor(e, dtype=torch.float64) for e in pair) for pair in pairs]
    alike = all(a.shape == b.shape or not (a.dim() and b.dim()) for a, b in ends)
    return [(a, b) for a, b in ends] if alike else None


def bound_text(bound: Bound) -> str:
    """Return a bound as a sentence shows it: one number, or the first of many."""
    values = torch.as_tensor(bound).flatten().tolist()
    shown = ", ".join(f"{value:g}" for value in values[:8])
    return shown if isinstance(bound, int | float) else f"[{shown}{', ...' * (len(values) > 8)}]"


def is_bounded(lower: Bound, upper: Bound) -> bool:
    """Return whether the box has a finite side; bounds in arrays count as finite."""
    if not isinstance(lower, int | float) or not isinstance(upper, int | float):
        return True
    return lower > -math.inf or upper < math.inf


def check_start(value: object, lower: Bound, upper: Bound) -> Float[Tensor, " d"]:
    """Return a start as a vector [d] of float32 or float64.

    Raises ConfigError, naming initial_x, for what is no vector of finite real numbers; warns of a
    start outside of the box.
    """
    x = _vector(value)
    if x.dim() != 1 or not len(x):
        raise ConfigError(f"initial_x has shape {tuple(x.shape)}; give a vector of numbers")
    if not bool(x.isfinite().all()):
        first = int((~x.isfinite()).nonzero()[0])
        raise ConfigError(
            f"initial_x[{first}]={float(x[first])}: all {len(x)} numbers of a start must be finite"
        )
    low, high = check_box(len(x), lower, upper)
    outside = (project(x, low, high) != x).nonzero().flatten()
    if len(outside):
        first = int(outside[0])
        ends = [float(torch.as_tensor(b).expand(len(x))[first]) for b in (low, high)]
        warnings.warn(
            f"initial_x[{first}]={float(x[first]):g} lies outside of its bounds {ends}, as do"
            f" {len(outside)} of {len(x)} numbers: it is judged at the nearest point of the box,"
            " and the first round takes it there; start inside, or widen the box",
            FedzoWarning,
            stacklevel=2,
        )
    return x


def _vector(value: object) -> Tensor:
    """Return a start as a new tensor of float32 or float64, of any shape."""
    if isinstance(value, Tensor):
        given = value.detach().to_dense() if value.is_sparse else value.detach()
        if not _is_real(given):
            raise _no_numbers(given.dtype)
        wide = given.dtype == torch.float64 or not given.is_floating_point()
        return given.to("cpu", torch.float64 if wide else torch.float32, copy=True).contiguous()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_numbers(f"a {type(value).__name__}") from error
    if array.dtype.kind not in "iuf":
        raise _no_numbers(array.dtype if array.dtype.kind != "O" else f"a {type(value).__name__}")
    narrow = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    return torch.from_numpy(array.astype(np.float32 if narrow else np.float64))


def _no_numbers(what: object) -> ConfigError:
    return ConfigError(
        f"initial_x is {what}; give real numbers, as a tensor, a numpy array or a list"
    )

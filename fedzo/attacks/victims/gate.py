"""The gate that what victims say must pass: arrays, tensors or nested lists in, clean tensors out.

Labels are read before anything is cast; scores keep the precision that they are told in (half
precision becomes float32, which holds it). A single output is made two classes: [1 - p, p] of
probabilities, [0, z] of logits. A logit of minus infinity is a probability of zero: it becomes 745
below the highest, the logarithm of the least float64. Axes of length 1 behind the first are left
out. NaN, or None, is a score that is not told, where the victim may keep some.
"""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fedzo.errors import FedzoWarning, ObjectiveError

_FINITE_CLASSES = 2**31
_LOG_OF_NOTHING = 745.0
_ROUNDING = 0.02
_LABELS = "labels [images]"
_SCORES = "scores [images, classes]"


def read_labels(told: object, count: int) -> Int[Tensor, " b"]:
    """Return `count` labels; raises ObjectiveError for anything else."""
    array = _numbers(told, _LABELS)
    if array.ndim != 1 or len(array) != count or not array.size:
        raise _wrong_shape(array, count, _LABELS)
    with np.errstate(invalid="ignore"):
        whole = (array >= 0) & (array < _FINITE_CLASSES) & (array == np.round(array))
    if not whole.all():
        raise ObjectiveError(f"the victim answered {_shown(told)}; labels are 0, 1, 2, ...")
    return torch.from_numpy(array.astype(np.int64))


def read_scores(
    told: object, count: int, tells: str, *, partial: bool
) -> tuple[Int[Tensor, " b"], Float[Tensor, "b k"]]:
    """Return labels, and scores of the kind that is declared; `partial`: some may be NaN.

    Raises ObjectiveError for another number of rows, for scores that are not finite, and for those
    that are not of the kind.
    """
    array = _two_axes(_numbers(told, _SCORES))
    if array.ndim != 2 or len(array) != count or not array.size:
        raise _wrong_shape(array, count, _SCORES)
    _check_finite(array, tells, partial)
    if tells == "probabilities":
        check_probabilities(array)
    if array.shape[1] == 1:
        if tells == "logits":
            _warn_of_sigmoid(array)
        rest = 1 - array if tells == "probabilities" else np.zeros_like(array)
        array = np.concatenate([rest, array], axis=1)
    labels = np.where(np.isnan(array), -np.inf, array).argmax(axis=1)
    if np.isneginf(array).any():
        array = _bounded_below(array)
    return torch.from_numpy(labels), torch.from_numpy(array)


def _numbers(told: object, wanted: str) -> NDArray[Any]:
    """Return what was told as numbers: float32, float64 or integers, None as NaN."""
    if isinstance(told, Tensor):
        told = told.detach().cpu()
        told = told.float() if told.dtype in (torch.bfloat16, torch.float16) else told
    if isinstance(told, dict) or (isinstance(told, list | tuple) and _tensors(told)):
        raise ObjectiveError(
            f"the victim returned {type(told).__name__} of several things; it must return {wanted}"
            " alone"
        )
    try:
        array = np.asarray(told)
        if array.dtype.kind in "USc" or _words_within(array):
            raise TypeError
        if array.dtype.kind in "fiu" and array.dtype.itemsize <= 8 and array.dtype != np.float16:
            return array if array.dtype.kind == "f" else _from_integers(array)
        return array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ObjectiveError(f"the victim answered {_shown(told)}, not {wanted}") from error


def _shown(told: object) -> str:
    """Return the beginning of what was told, on one line."""
    return " ".join(f"{told!r:.200}".split())[:80]


def _tensors(told: list[Any] | tuple[Any, ...]) -> bool:
    """Say whether a sequence holds tensors or tables of other shapes, as several outputs do."""
    shapes = [tuple(part.shape) for part in told if hasattr(part, "shape")]
    return len(shapes) == len(told) and (
        len(set(shapes)) > 1 or (isinstance(told, tuple) and bool(shapes) and len(shapes[0]) > 1)
    )


def _words_within(array: NDArray[Any]) -> bool:
    return array.dtype == object and any(isinstance(x, str | bytes | dict) for x in array.flat)


def _from_integers(array: NDArray[Any]) -> NDArray[Any]:
    """Return integers as float64; raises ValueError where that is another number."""
    real = array.astype(np.float64)
    if (np.abs(real) > 2.0**53).any():
        raise ValueError("integers beyond 2^53")
    return real


def _two_axes(array: NDArray[Any]) -> NDArray[Any]:
    """Return [n, k, 1, 1] and [n, 1, k] as [n, k]."""
    while array.ndim > 2 and 1 in array.shape[1:]:
        last = array.ndim - 1 - array.shape[:0:-1].index(1)
        array = array.squeeze(last)
    return array


def _wrong_shape(array: NDArray[Any], count: int, wanted: str) -> ObjectiveError:
    hint = ""
    if wanted == _SCORES and array.shape == (count,):
        hint = "; for a single output a model returns [images, 1], and labels need tells=labels"
    return ObjectiveError(
        f"the victim answered an array of shape {array.shape} for {count} images, not"
        f" {wanted}{hint}"
    )


def _check_finite(array: NDArray[Any], tells: str, partial: bool) -> None:
    known = np.isfinite(array)
    lost = np.isposinf(array) | (np.isnan(array) & (not partial))
    if tells != "logits" or array.shape[1] == 1:
        lost |= np.isinf(array)
    if lost.any() or not known.any(axis=1).all():
        raise ObjectiveError(
            "the victim answered scores that are not finite"
            f" ({', '.join(f'{z:g}' for z in array[(lost | ~known).any(axis=1)][0][:5])})"
        )


def _bounded_below(array: NDArray[Any]) -> NDArray[Any]:
    known = np.where(np.isfinite(array), array, np.nan)
    least = np.minimum(np.nanmax(known, axis=1) - _LOG_OF_NOTHING, np.nanmin(known, axis=1))
    return np.where(np.isneginf(array), least[:, None], array).astype(array.dtype)


def _warn_of_sigmoid(array: NDArray[Any]) -> None:
    """Warn of single outputs that look like what a sigmoid gives, and are taken for logits."""
    if len(array) > 1 and bool(((array >= 0) & (array <= 1)).all()):
        warnings.warn(
            "the victim's single outputs lie within 0 and 1 and are taken for logits, which are"
            " class 1 wherever they are above 0; if a sigmoid made them, set"
            " victim.tells=probabilities (tells='probabilities'), for no attack can succeed else",
            FedzoWarning,
            stacklevel=2,
        )


def check_probabilities(array: NDArray[Any]) -> None:
    """Raise ObjectiveError for scores that are no probabilities; rows may sum below one."""
    low, high = float(np.nanmin(array)), float(np.nanmax(array))
    remedy = "say victim.tells=logits (tells='logits') if they are other scores"
    if low < -1e-3 or high > 1 + _ROUNDING:
        rows = np.nansum(array, axis=1)
        if low >= 0 and high <= 100.5 and bool((rows <= 101).all()):
            remedy = "divide them by 100 if they are percentages, or " + remedy
        raise ObjectiveError(
            f"the victim was said to tell probabilities and told {low:g} to {high:g}; {remedy}"
        )
    most = float((np.nansum(array, axis=1) - _rounding(array)).max())
    if most > 1 + _ROUNDING:
        raise ObjectiveError(
            f"the victim was said to tell probabilities, which sum to 1, and told {most:.3g} in"
            f" all; {remedy}, such as one sigmoid a class"
        )


def _rounding(array: NDArray[Any]) -> NDArray[Any]:
    """Return by how much rounding to a few decimals can raise the sum of each row."""
    for decimals in (1, 2, 3):
        if np.allclose(array, array.round(decimals), rtol=0, atol=1e-6, equal_nan=True):
            return np.asarray(0.5 * 10.0**-decimals * (array > 0).sum(axis=1))
    return np.zeros(len(array))

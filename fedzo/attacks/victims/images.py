"""What may be attacked: images [n, c, h, w] in [0, 1], with a class 0, 1, 2, ... for each.

Arrays and tensors of any float type are taken, and become float32; what is likely meant otherwise
(0 to 255, channels last, no batch axis, one-hot labels) is refused by name.
"""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fedzo.config import require
from fedzo.errors import ConfigError

Given = Tensor | NDArray[Any] | list[Any]
ArrayLayout = Literal["nchw", "nhwc"]
_AXES = {"nchw": "n, channels, height, width", "nhwc": "n, height, width, channels"}
_REMEDY: dict[ArrayLayout, str] = {
    "nchw": "channels come second: images.transpose(0, 3, 1, 2)",
    "nhwc": "layout=nhwc says that channels come last; leave it out",
}


def read_images(
    given: Given, *, name: str = "", layout: ArrayLayout = "nchw"
) -> Float[Tensor, "n c h w"]:
    """Return images given in a layout; raises ConfigError, beginning with `name`, for none."""
    images = _array(given, f"{name}images")
    if images.ndim != 4 or not images.size or images.dtype.kind not in "fiub":
        one = ", and one image needs images[None]" if images.ndim == 3 else ""
        raise ConfigError(
            f"{name}images have shape {images.shape} of {images.dtype}; give numbers"
            f" [{_AXES[layout]}], n >= 1{one}"
        )
    channels, other = (1, 3) if layout == "nchw" else (3, 1)
    if images.shape[other] in (1, 3, 4) and images.shape[channels] not in (1, 2, 3, 4):
        raise ConfigError(f"{name}images have shape {images.shape}; {_REMEDY[layout]}")
    if layout == "nhwc":
        images = images.transpose(0, 3, 1, 2)
    if not np.isfinite(images).all():
        raise ConfigError(f"{name}images hold numbers that are not finite; mend or leave them out")
    low, high = images.min(), images.max()
    if not 0 <= low <= high <= 1:
        raise ConfigError(
            f"{name}pixels lie in [{low}, {high}]; scale them to [0, 1], such as images / 255"
        )
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def read_labels(given: Given, count: int, *, name: str = "labels") -> Int[Tensor, " n"]:
    """Return `count` classes; raises ConfigError, beginning with `name`, for what are none."""
    labels = _array(given, name)
    whole = labels.dtype.kind in "iub" or (
        labels.dtype.kind == "f" and bool((labels == np.round(labels)).all())
    )
    if labels.shape != (count,) or not whole:
        one_hot = ", such as labels.argmax(1)" if labels.shape[:1] == (count,) else ""
        raise ConfigError(
            f"{name} have shape {labels.shape} of {labels.dtype} for {count} images; give one class"
            f" of 0, 1, 2, ... for each{one_hot if labels.ndim == 2 else ''}"
        )
    least, most = labels.min(), labels.max()
    require(bool(least >= 0), f"{name}: the least label", int(least), "0 or more")
    require(bool(most < 2**31), f"{name}: the largest label", int(most), "a class: 0, 1, 2, ...")
    return torch.from_numpy(labels.astype(np.int64))


def _array(given: Given, name: str) -> NDArray[Any]:
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.float() if given.dtype in (torch.bfloat16, torch.float16) else given
    try:
        return np.asarray(given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} are no array of numbers: {error}") from error

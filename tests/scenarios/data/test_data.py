"""Loaders: what packages carry, and the IDX format byte by byte."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from fedzo.errors import ConfigError
from scenarios.data.images import load_images

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
LABELS = np.array([1, 0], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def folder(path: Path, *, zipped: bool) -> Path:
    for part in ("train", "t10k"):
        for stem, array in (("images-idx3", PIXELS), ("labels-idx1", LABELS)):
            name = path / f"{part}-{stem}-ubyte"
            data = idx(array)
            if zipped:
                name.with_name(name.name + ".gz").write_bytes(gzip.compress(data))
            else:
                name.write_bytes(data)
    return path


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folders_are_read(tmp_path: Path, zipped: bool) -> None:
    train, test = load_images("idx", str(folder(tmp_path, zipped=zipped)), seed=0)
    assert torch.equal(train.pixels, torch.from_numpy(PIXELS / 255).float())
    assert test.labels.tolist() == [1, 0]
    assert train.num_classes == 2


def test_mnist_is_mnist() -> None:
    train, test = load_images("mnist5k", "", seed=0)
    assert (len(train), len(test)) == (4000, 1000)
    assert train.pixels.shape == (4000, 28, 28)
    assert float(train.pixels.max()) == 1.0
    counts = torch.bincount(torch.cat([train.labels, test.labels]))
    assert counts.tolist() == [500] * 10


def test_the_split_depends_on_the_seed_alone() -> None:
    one, same, other = (load_images("digits", "", seed=s)[1] for s in (0, 0, 1))
    assert torch.equal(one.pixels, same.pixels)
    assert not torch.equal(one.labels, other.labels)
    assert one.pixels.shape[1:] == (8, 8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, "no file train-images"),
        (b"", "no IDX file of 3-axis bytes"),
        (b"\0\0\x08\x01" + bytes(12), "no IDX file of 3-axis bytes"),
        (idx(PIXELS)[:-1], "promises 18 bytes and holds 17"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: bytes | None, message: str) -> None:
    folder(tmp_path, zipped=False)
    target = tmp_path / "train-images-idx3-ubyte"
    if damage is None:
        target.unlink()
    else:
        target.write_bytes(damage)
    with pytest.raises(ConfigError, match=message):
        load_images("idx", str(tmp_path), seed=0)

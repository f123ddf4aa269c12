"""Images of a folder: pictures (PNG, JPEG, ...), and a class for each.

    FOLDER/3/1.png  FOLDER/cat/7.jpg    classes are folders
    FOLDER/1.png, FOLDER/labels.csv     columns `file` and `label`

A class is a number, or a name of a list that says which number the model has for it: the order of
names in a folder is nobody's but the folder's.

Pictures of one channel become [1, h, w], all others three; they must be equally large, unless they
are cut: `size` scales the shorter side to so many pixels and takes the middle, as models of
photographs are used to. Values are k / 255, float32; grey pictures of 16 bits are rounded to 8,
colored ones cut to 8 (by Pillow). What is transparent has no color, and is refused.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fedzo.config import unknown_key
from fedzo.errors import ConfigError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
LABELS = "labels.csv"
_GREY = ("1", "L")
_MOST_8, _MOST_16 = 255, 65_535


_NO_PICTURE = (
    OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises for files that it cannot read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """Images with a class each; names of the classes, and files, where there are any."""

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    classes: Sequence[str] = ()
    files: Sequence[str] = ()

    @property
    def num_classes(self) -> int:
        """Return how many classes a model of these images has, as far as they tell; 10 or more."""
        return max(10, int(self.labels.max()) + 1, len(self.classes))


def read_folder(folder: Path, size: int = 0, classes: Sequence[str] = ()) -> LabelledImages:
    """Return the images of a folder; classes: the model's, by name.

    Raises ConfigError, which names the file, for what is no image or of no class.
    """
    told = _told(folder) if (folder / LABELS).is_file() else _sorted(folder)
    if not told:
        raise ConfigError(
            f"{folder} holds no images; put them into a folder for each class, or beside a"
            f" {LABELS} with columns file and label ({', '.join(SUFFIXES)})"
        )
    labels = [_class(label, classes, folder) for _, label in told]
    pictures = [_read(path, size) for path, _ in told]
    return LabelledImages(
        images=stacked([path for path, _ in told], pictures),
        labels=torch.tensor(labels),
        classes=classes,
        files=[_name_of(path, folder) for path, _ in told],
    )


def _name_of(path: Path, folder: Path) -> str:
    """Return a file's place in the folder, or where it is else."""
    inside = path.is_relative_to(folder)
    return str(path.relative_to(folder)) if inside else str(path)


def read_names(path: Path) -> list[str]:
    """Return the names of classes 0, 1, ... that a file lists, one a line."""
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"classes {path} cannot be read: {error}") from error
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise ConfigError(f"classes {path}: write one name a line, that of class 0 first")
    return names


def _sorted(folder: Path) -> list[tuple[Path, str]]:
    """Return the pictures in the folders of classes."""
    return [
        (path, place.name)
        for place in sorted(p for p in folder.iterdir() if p.is_dir())
        for path in sorted(place.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]


def _told(folder: Path) -> list[tuple[Path, str]]:
    """Return the pictures that a table of labels lists."""
    path = folder / LABELS
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        if not row.get("file") or not row.get("label"):
            raise ConfigError(f"{path}, line {number}: give columns file and label")
        if not (folder / row["file"]).is_file():
            raise ConfigError(f"{path}, line {number}: there is no file {folder / row['file']}")
        if row["file"] in seen:
            raise ConfigError(f"{path}, line {number}: {row['file']} is there twice; name it once")
        seen.add(row["file"])
    return [(folder / row["file"], row["label"].strip()) for row in rows]


def _class(label: str, classes: Sequence[str], folder: Path) -> int:
    """Return the number of a class; raises ConfigError for a name that is in no list."""
    if label in classes:
        return classes.index(label)
    if label.isascii() and label.isdigit():
        return int(label)
    if classes:
        raise unknown_key(label, classes, what=f"class of {folder}")
    raise ConfigError(
        f"{folder} has a class named {label!r}, and only the model knows which number that is; list"
        " its classes in a file, one a line, that of class 0 first: victim.classes=FILE"
    )


def _read(path: Path, size: int) -> np.ndarray:
    """Return one picture [h, w] or [h, w, 3], of bytes."""
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith(("I", "F")):
                picture = _of_8_bits(picture, path)
            _require_opaque(picture, path)
            picture = picture.convert("L" if picture.mode in _GREY else "RGB")
    except ConfigError:
        raise
    except _NO_PICTURE as error:
        raise ConfigError(f"{path} is no picture that can be read: {error}") from error
    if size:
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _require_opaque(picture: Image.Image, path: Path) -> None:
    """Raise ConfigError for a picture that shows through somewhere."""
    if picture.has_transparency_data and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
        raise ConfigError(f"{path} is transparent in places; save it on a background")


def _of_8_bits(picture: Image.Image, path: Path) -> Image.Image:
    """Return a grey picture of 16 bits in 8; raises ConfigError for other numbers."""
    numbers = np.asarray(picture)
    low, high = numbers.min(initial=0), numbers.max(initial=0)
    unclear = picture.mode == "F" or (picture.mode == "I" and high <= _MOST_8)
    if unclear or low < 0 or high > _MOST_16:
        raise ConfigError(
            f"{path} holds numbers from {low:g} to {high:g}, and nobody says what is white; save it"
            " with 8 or 16 bits"
        )
    return Image.fromarray(np.rint(numbers / 257).astype(np.uint8))


def stacked(paths: Sequence[Path], pictures: Sequence[np.ndarray]) -> Float[Tensor, "n c h w"]:
    """Return pictures of bytes as images of k / 255; raises ConfigError where sizes differ."""
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [
            picture if picture.ndim == 3 else np.stack([picture] * 3, axis=-1)
            for picture in pictures
        ]
    first = pictures[0].shape[:2]
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape[:2] != first:
            height, width = picture.shape[:2]
            raise ConfigError(
                f"{path} is {width} x {height} pixels and {paths[0]} {first[1]} x {first[0]}; cut"
                " them to one size, such as victim.size=224"
            )
    table = np.stack(pictures)
    table = table[:, np.newaxis] if table.ndim == 3 else table.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(table, dtype=np.float32) / 255)

"""Squares cut from photographs that ship with scikit-image and scikit-learn, for ImageNet networks.

    CHELSEA = ((113, 75, 225), 285)      a square at column 113, row 75, of side 225; its class

Nobody has labelled them: a label is what EfficientNet-Lite0 answers at 224 x 224, with a confidence
above 0.3 (a test asks it), right or wrong. Photographs: scikit-image's astronaut (NASA), coffee
(Rachel Michetti), chelsea and clock_motion (Stefan van der Walt), rocket (SpaceX) and camera (Lav
Varshney), in the public domain or CC0, and motorcycle (Middlebury 2014 stereo benchmark);
scikit-learn's china and flower (Flickr, CC BY 2.0).
"""

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fedzo.errors import ConfigError
from scenarios.data.image_folder import LabelledImages, stacked

_PLACES = {"skimage": "data", "sklearn": "datasets/images"}
_CROPS = {
    ("skimage", "astronaut.png"): [
        ((0, 0, 384), 450),
        ((115, 231, 281), 518),
        ((231, 231, 281), 560),
    ],
    ("skimage", "coffee.png"): [
        ((0, 0, 400), 967),
        ((150, 100, 300), 967),
        ((190, 180, 220), 967),
    ],
    ("skimage", "chelsea.png"): [
        ((0, 0, 300), 285),
        ((113, 75, 225), 285),
        ((286, 135, 165), 285),
    ],
    ("skimage", "rocket.jpg"): [
        ((0, 0, 320), 540),
        ((320, 107, 320), 540),
        ((406, 193, 234), 540),
    ],
    ("sklearn", "china.jpg"): [
        ((0, 0, 427), 442),
        ((0, 107, 320), 663),
        ((406, 193, 234), 975),
    ],
    ("sklearn", "flower.jpg"): [
        ((0, 0, 427), 985),
        ((160, 107, 320), 985),
        ((203, 193, 234), 985),
    ],
    ("skimage", "motorcycle_left.png"): [
        ((0, 0, 500), 665),
        ((0, 125, 375), 665),
        ((466, 225, 275), 665),
    ],
    ("skimage", "camera.png"): [
        ((0, 0, 512), 872),
        ((0, 128, 384), 872),
        ((231, 231, 281), 872),
    ],
    ("skimage", "clock_motion.png"): [
        ((0, 0, 300), 971),
        ((87, 0, 225), 971),
        ((87, 75, 225), 971),
    ],
}
"""Crops by package and file: (left, top, side) in pixels, class."""
Square = tuple[tuple[int, int, int], int]
_MANY = Path(__file__).with_name("photo_squares.csv")


def load_photos(size: int = 224) -> LabelledImages:
    """Return the crops, scaled to so many pixels a side; values are k / 255.

    Raises ConfigError where the packages with the photographs are not installed.
    """
    return _cut([(place, square) for place, of in _CROPS.items() for square in of], size)


def load_many_photos(size: int = 224) -> LabelledImages:
    """Return 360 squares, 40 of each photograph, at least half as high; they overlap.

    Labels are those of the network, as above. Raises ConfigError where the packages with the
    photographs are not installed.
    """
    with _MANY.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    return _cut([((row["package"], row["file"]), _square(row)) for row in rows], size)


def _cut(squares: Sequence[tuple[tuple[str, str], Square]], size: int) -> LabelledImages:
    wholes = {place: _opened(*place) for place, _ in squares}
    pictures, labels, files = [], [], []
    for place, ((left, top, side), label) in squares:
        cut = wholes[place].crop((left, top, left + side, top + side))
        pictures.append(np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC)))
        labels.append(label)
        files.append(f"{Path(place[1]).stem}-{left}-{top}-{side}")
    images = stacked([Path(name) for name in files], pictures)
    return LabelledImages(images=images, labels=torch.tensor(labels), files=files)


def _square(row: Mapping[str, str]) -> Square:
    return (int(row["left"]), int(row["top"]), int(row["side"])), int(row["class"])


def _opened(package: str, name: str) -> Image.Image:
    with Image.open(_folder(package) / name) as opened:
        return opened.convert("RGB")


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        named = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
        raise ConfigError(f"data photos need {named}; pip install 'fedzo[vision]'")
    return Path(spec.submodule_search_locations[0]) / _PLACES[package]

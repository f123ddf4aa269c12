"""Images to attack a victim with, from words: a data set, an .npz file, or a folder of pictures."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fedzo.attacks.victims.images import read_images, read_labels
from fedzo.config import unknown_key
from fedzo.errors import ConfigError
from scenarios.data.image_folder import LabelledImages, read_folder, read_names
from scenarios.data.images import load_images
from scenarios.data.photo_networks import photo_classes
from scenarios.data.photos import load_photos
from scenarios.victims.shipped import SHIPPED

PHOTOS = "photos"
UNREADABLE = (
    OSError, KeyError, ValueError, AttributeError, TypeError, EOFError, BadZipFile, zlib.error,
    NotImplementedError,
)  # fmt: skip
"""What numpy raises for files that are not as they were written."""


def load_data(
    name: str, size: int = 0, classes: str = "", *, photographs: bool = False, typed: bool = True
) -> LabelledImages:
    """Return images by the name of a data set, an .npz file or a folder, which `size` cuts.

    classes: a file with their names, those of ImageNet for photos and, unless there is such a file,
    where the victim is a network of photographs. typed: whether somebody gave that name, and may
    have meant a folder that is called so. Raises ConfigError for what is none of these.
    """
    folder = typed and Path(name).is_dir()
    if size and not folder and name != PHOTOS:
        raise ConfigError(
            f"victim.size={size} cuts photos or the pictures of a folder, and data {name} are"
            " neither; leave it out"
        )
    if classes:
        names: Sequence[str] = read_names(Path(classes))
    else:
        own = name == PHOTOS and not folder
        names = photo_classes() if photographs or own else ()
    if folder:
        found = read_folder(Path(name), size, names)
    elif name == PHOTOS:
        found = replace(load_photos(size or 224), classes=names)
    else:
        found = replace(_stored(name), classes=names)
    if names and len(names) <= int(found.labels.max()):
        raise ConfigError(
            f"victim.classes={classes} has {len(names)} names, and the labels of {name} reach"
            f" {int(found.labels.max())}; give one for each"
        )
    return found


def class_number(text: str | None, classes: Sequence[str]) -> int | None:
    """Return the class of a number or a name; raises ConfigError for what is neither."""
    if text is None:
        return None
    if text in classes:
        return classes.index(text)
    if text.isascii() and text.removeprefix("-").isdigit():
        return int(text)
    if classes:
        raise unknown_key(text, classes, what="class")
    raise ConfigError(
        f"--target {text}: the data have no names of classes; give a number, or victim.classes"
    )


def _stored(name: str) -> LabelledImages:
    """Return the images of a data set that ships, or of an .npz file."""
    if name in SHIPPED or name == "digits":
        dataset = SHIPPED.get(name, "digits")
        test = load_images(dataset, "", seed=0)[1]
        return LabelledImages(images=test.pixels.unsqueeze(1), labels=test.labels)
    if not name.endswith(".npz"):
        raise ConfigError(
            f"data {name!r} is none of mnist, fashion, digits, photos, no .npz file and no folder"
        )
    try:
        with np.load(name) as file:
            images, labels = (np.array(file[n]) for n in ("images", "labels"))
    except UNREADABLE as error:
        raise ConfigError(
            f"data {name} is no .npz file with arrays `images` and `labels` ({error!s:.60})"
        ) from error
    images = images[:, np.newaxis] if images.ndim == 3 and images.size else images
    pixels = read_images(images, name=f"data {name}: ")
    told = read_labels(labels, len(pixels), name=f"data {name}: labels")
    return LabelledImages(images=pixels, labels=told)

"""Pictures of an attack as PNG files: what the victim was asked, bit by bit.

    png/PLACE-original.png  png/PLACE-adversarial.png  png/PLACE-change.png (amplified)

An attack on levels=255 asks about images that are whole steps of 1/255, which is what a file holds;
so what is a success here is one of the saved file. Each file is read again and compared.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fedzo.errors import ConfigError, RunError
from fedzo.records.storage import write_whole
from scenarios.attacks.attack_result import Report, amplified

FOLDER = "png"
PNG_LEVELS = 255


def check_pictures(images: Float[Tensor, "n c h w"], levels: int) -> None:
    """Raise ConfigError for images that no PNG file can hold as they are."""
    if levels != PNG_LEVELS:
        raise ConfigError(
            f"levels={levels}: a PNG file holds whole steps of 1/255; give levels=255, or leave it"
            " out"
        )
    if images.shape[1] not in (1, 3):
        raise ConfigError(f"images have {images.shape[1]} channels, and a PNG file has 1 or 3")


def write_pictures(folder: Path, report: Report) -> None:
    """Write the pictures of an attack below the folder.

    Raises ConfigError for images that no PNG holds, RunError for a file that reads otherwise.
    """
    check_pictures(report.images, report.plan.settings.levels)
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    pairs = zip(report.images, report.adversarials, strict=True)
    for number, (original, adversarial) in zip(report.screened.chosen.tolist(), pairs, strict=True):
        kinds = {
            "original": original,
            "adversarial": adversarial,
            "change": amplified(adversarial - original),
        }
        for kind, image in kinds.items():
            _write(place / f"{number:05}-{kind}.png", image, exact=kind != "change")


def _write(path: Path, image: Float[Tensor, "c h w"], *, exact: bool) -> None:
    values = (image * PNG_LEVELS).round().clamp(0, PNG_LEVELS).byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    content = BytesIO()
    picture.save(content, format="PNG")
    write_whole(path, content.getvalue())
    with Image.open(path) as saved:
        read = np.asarray(saved, dtype=np.float32) / PNG_LEVELS
    asked = image.permute(1, 2, 0).numpy().reshape(read.shape)
    if exact and not np.array_equal(read, asked):
        raise RunError(f"{path} holds other values than the victim was asked")

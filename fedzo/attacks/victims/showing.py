"""Victims that are shown something else than is asked: other axes, whole steps, fewer bits, JPEG.

Where small changes get lost, that is a defense: Xu, Evans & Qi, "Feature Squeezing", NDSS 2018;
Guo, Rana, Cisse & van der Maaten, "Countering Adversarial Images Using Input Transformations", ICLR
2018. Whoever queries the model through them attacks what it sees, so they defend from attacks alone
that were made without them. Images [b, c, h, w] in [0, 1], of one channel or three for JPEG.
"""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fedzo.attacks.region import on_levels
from fedzo.attacks.resuming import ask_again
from fedzo.attacks.victims.victim import Answers, Victim, ask_checked
from fedzo.attacks.victims.wrappers import Around
from fedzo.config import require
from fedzo.errors import ConfigError

Show = Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "b ..."]]
"""Images as they are asked, to what a victim is shown."""


class Showing(Around):
    """Shows the victim something else than the images that are asked: `shown` of them."""

    def __init__(self, victim: Victim, shown: Show) -> None:
        super().__init__(victim)
        self._shown = shown

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        return ask_checked(self.victim, self._shown(images))

    def again(self, images: Float[Tensor, "b c h w"], number: int) -> Answers:
        """Ask anew, though the victim inside remembers."""
        return ask_again(self.victim, self._shown(images), number)


class ChannelsLast(Showing):
    """Shows the victim images as [b, h, w, c]."""

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim, _channels_last)


def _channels_last(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w c"]:
    return images.permute(0, 2, 3, 1).contiguous()


class OnLevels(Showing):
    """Shows the victim what a file of whole steps of 1 / levels holds, without rounding errors."""

    def __init__(self, victim: Victim, levels: int) -> None:
        super().__init__(victim, partial(on_levels, levels=levels))


def fewer_bits(victim: Victim, bits: int) -> OnLevels:
    """Return a victim that is shown values of so many bits: the nearest of 2^bits equal steps."""
    require(1 <= bits <= 16, "bits", bits, "from 1 to 16")
    return OnLevels(victim, 2**bits - 1)


class Jpeg(Showing):
    """Shows the victim what JPEG of a quality from 1 to 95 leaves of an image."""

    def __init__(self, victim: Victim, quality: int) -> None:
        require(1 <= quality <= 95, "quality", quality, "from 1 to 95")
        super().__init__(victim, partial(_compressed, quality=quality))


def _compressed(images: Float[Tensor, "b c h w"], quality: int) -> Float[Tensor, "b c h w"]:
    return torch.stack([_left_of(image, quality) for image in images])


def _left_of(image: Float[Tensor, "c h w"], quality: int) -> Float[Tensor, "c h w"]:
    if len(image) not in (1, 3):
        raise ConfigError(f"jpeg is for images of 1 or 3 channels, not {len(image)}")
    values = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    picture = Image.fromarray(values[..., 0] if len(image) == 1 else values)
    picture.save(file, format="JPEG", quality=quality)
    left = torch.from_numpy(np.array(Image.open(file)))
    return left.reshape(*image.shape[1:], len(image)).permute(2, 0, 1).to(image) / 255

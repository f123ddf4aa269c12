"""A network of photographs, and what it sees through a bad lens.

corrupted_photos     EfficientNet-Lite0 (4.7 million parameters, ImageNet) moved to squares of nine
                     photographs that are blurred, grey and noisy

A class is what the network says of the clean square, so nothing is to be learnt but to see it
again. 240 squares to train and 120 to test, of the same photographs; they overlap. Blur, contrast
and noise are three of the corruptions of Hendrycks & Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR 2019, together, with strengths of ours.
"""

from collections import OrderedDict

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.config import require
from fedzo.randomness import stream
from scenarios.data.photo_networks import photo_network, scaled
from scenarios.data.photos import load_many_photos
from scenarios.finetune.task import HEAD, Examples, Source

_BLUR, _CONTRAST, _NOISE = 7, 0.4, 0.05
_TRAIN = 240


class Scaled(nn.Module):
    """Images in [0, 1] as the network takes them."""

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return scaled(images)


def corrupted_photos(examples: int, *, seed: int) -> Source:
    """Return the network, and the squares as they are seen now: 240 to train and 120 to test.

    Raises ConfigError where packages with the network or the photographs are not installed, and for
    more examples than there are.
    """
    require(examples <= _TRAIN, "examples", examples, f"at most {_TRAIN}, 0 for all")
    squares = load_many_photos()
    drawn = stream(seed, "finetune", "corrupted_photos", "order").permutation(len(squares.labels))
    order = torch.from_numpy(drawn)

    def seen(part: str, rows: Tensor) -> Examples:
        noise = stream(seed, "finetune", "corrupted_photos", part)
        return Examples(corrupted(squares.images[rows], generator=noise), squares.labels[rows])

    return Source(
        network=_chain(photo_network("efficientnet-lite0").network),
        train=seen("train", order[: examples or _TRAIN]),
        test=seen("test", order[_TRAIN:]),
        layers=3,
    )


def corrupted(
    images: Float[Tensor, "n 3 h w"], *, generator: np.random.Generator
) -> Float[Tensor, "n 3 h w"]:
    """Return images blurred over 7 x 7 pixels, at 0.4 of their contrast, with noise of 0.05."""
    padded = nn.functional.pad(images, [_BLUR // 2] * 4, mode="replicate")
    blurred = nn.functional.avg_pool2d(padded, _BLUR, stride=1)
    noise = torch.from_numpy(generator.standard_normal(images.shape, dtype=np.float32))
    return (0.5 + _CONTRAST * (blurred - 0.5) + _NOISE * noise).clamp(0, 1)


def _chain(network: nn.Module) -> nn.Sequential:
    """Return the network as a chain of its stem, its 16 blocks, its features and its head."""
    blocks = network.get_submodule("_blocks").named_children()
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            [
                ("scaled", Scaled()),
                ("stem", network.get_submodule("_conv_stem")),
                ("act0", nn.ReLU6()),
                *((f"block{number}", block) for number, block in blocks),
                ("features", network.get_submodule("_conv_head")),
                ("act1", nn.ReLU6()),
                ("pool", nn.AdaptiveAvgPool2d(1)),
                ("flat", nn.Flatten()),
                (HEAD, network.get_submodule("_fc")),
            ]
        )
    )

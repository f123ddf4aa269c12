"""Small networks and the digits that they are adapted to, for benches and tests.

shifted_digits       MLP 784-64-32-10 (52,650 parameters), trained on 3,000 MNIST digits and moved
                     to digits that are turned, shifted and noisy
digits_transformer   two layers, 8 tokens (rows), width 32 (17,962), trained on 797 8x8 digits and
                     moved to digits that are transposed and noisy
digits_cnn           Conv(1,6,3)-ReLU-MaxPool2-Linear(54,10) (610), not trained, on 8x8 digits
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.config import require
from fedzo.randomness import stream
from scenarios.data.images import DatasetName, Images, load_images
from scenarios.finetune.encoder import EncoderLayer, Pool
from scenarios.finetune.task import HEAD, Examples, Source

_CLASSES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a network is trained before it is adapted: Adam."""

    epochs: int
    lr: float
    batch_size: int = 64


class Rows(nn.Module):
    """The rows of an image as tokens: a linear map of each, and a vector of its place."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.pixels = nn.Linear(side, width)
        self.places = nn.Parameter(torch.empty(side, width))

    def forward(self, images: Float[Tensor, "b s s"]) -> Float[Tensor, "b s h"]:
        tokens: Tensor = self.pixels(images)
        return tokens + self.places


def shifted_digits(examples: int, *, seed: int) -> Source:
    """Return the MLP and the digits that it is moved to: 1,000 to train and 1,000 to test."""
    images, held = _shuffled("mnist5k", seed)
    before, after = images.take(torch.arange(3000)), images.take(torch.arange(3000, len(images)))
    with torch.device("meta"):
        network = _chain(
            flat=nn.Flatten(),
            layer0=nn.Linear(784, 64),
            relu0=nn.ReLU(),
            layer1=nn.Linear(64, 32),
            relu1=nn.ReLU(),
            head=nn.Linear(32, _CLASSES),
        )
    initialize(network, generator=stream(seed, "finetune", "shifted_digits", "start"))
    train(network, _examples(before), Training(epochs=8, lr=1e-3), seed=seed)
    moved = stream(seed, "finetune", "shifted_digits", "noise")
    return Source(
        network=network,
        train=_examples(shifted(_first(after, examples), generator=moved)),
        test=_examples(shifted(held, generator=moved)),
        layers=2,
    )


def digits_transformer(examples: int, *, seed: int) -> Source:
    """Return the transformer and the digits that it is moved to: 640 to train and 360 to test."""
    images, held = _shuffled("digits", seed)
    before, after = images.take(torch.arange(797)), images.take(torch.arange(797, len(images)))
    with torch.device("meta"):
        network = _chain(
            embedding=Rows(8, 32),
            layer0=EncoderLayer(32, 4, 64, 1e-5),
            layer1=EncoderLayer(32, 4, 64, 1e-5),
            pool=Pool(unit=False),
            head=nn.Linear(32, _CLASSES),
        )
    initialize(network, generator=stream(seed, "finetune", "digits_transformer", "start"))
    train(network, _examples(before), Training(epochs=15, lr=3e-3, batch_size=32), seed=seed)
    noise = stream(seed, "finetune", "digits_transformer", "noise")
    return Source(
        network=network,
        train=_examples(transposed(_first(after, examples), generator=noise)),
        test=_examples(transposed(held, generator=noise)),
        layers=3,
    )


def digits_cnn(examples: int, *, seed: int) -> Source:
    """Return the CNN as it is drawn, and 8x8 digits: 1,437 to train and 360 to test."""
    images, held = _shuffled("digits", seed)
    with torch.device("meta"):
        network = _chain(
            layer0=nn.Conv2d(1, 6, 3),
            relu0=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            head=nn.Linear(54, _CLASSES),
        )
    initialize(network, generator=stream(seed, "finetune", "digits_cnn", "start"))
    some = _examples(_first(images, examples))
    return Source(
        network=network,
        train=Examples(some.inputs.unsqueeze(1), some.targets),
        test=Examples(held.pixels.unsqueeze(1), held.labels),
        layers=1,
    )


def shifted(
    images: Images, *, degrees: float = 30.0, shift: float = 0.08, generator: np.random.Generator
) -> Images:
    """Return images turned, shifted by a share of their side to the right and down, and noisy."""
    turn = math.radians(degrees)
    rows = [
        [math.cos(turn), -math.sin(turn), -2 * shift],
        [math.sin(turn), math.cos(turn), -2 * shift],
    ]
    pixels = images.pixels.unsqueeze(1)
    places = torch.nn.functional.affine_grid(
        torch.tensor(rows).expand(len(images), 2, 3), list(pixels.shape), align_corners=False
    )
    moved = torch.nn.functional.grid_sample(pixels, places, align_corners=False).squeeze(1)
    return Images(_noisy(moved, 0.2, generator=generator), images.labels)


def transposed(images: Images, *, generator: np.random.Generator) -> Images:
    """Return images with rows for columns, and noisy."""
    pixels = images.pixels.transpose(1, 2).contiguous()
    return Images(_noisy(pixels, 0.1, generator=generator), images.labels)


def train(network: nn.Module, examples: Examples, training: Training, *, seed: int) -> None:
    """Train all parameters of a network in place."""
    network.requires_grad_(True)
    optimizer = torch.optim.Adam(network.parameters(), lr=training.lr)
    generator = stream(seed, "finetune", "training")
    for _ in range(training.epochs):
        order = torch.from_numpy(generator.permutation(len(examples)))
        for rows in order.split(training.batch_size):
            outputs = network(examples.inputs[rows])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(outputs, examples.targets[rows]).backward()
            optimizer.step()
    network.requires_grad_(False)


def initialize(network: nn.Module, *, generator: np.random.Generator) -> None:
    """Give a network storage and draw its parameters.

    Weights and biases of maps are uniform in +-1/sqrt(fan_in), those of norms 1 and 0, all others
    normal with deviation 0.1.
    """
    network.to_empty(device="cpu")
    with torch.no_grad():
        for part in network.modules():
            for name, parameter in part.named_parameters(recurse=False):
                if isinstance(part, nn.LayerNorm):
                    parameter.fill_(1.0 if name == "weight" else 0.0)
                    continue
                drawn = generator.standard_normal(parameter.shape) * 0.1
                if isinstance(part, nn.Linear | nn.Conv2d):
                    bound = part.weight[0].numel() ** -0.5
                    drawn = generator.uniform(-bound, bound, parameter.shape)
                parameter.copy_(torch.from_numpy(np.asarray(drawn)))


def _shuffled(name: DatasetName, seed: int) -> tuple[Images, Images]:
    """Return four fifths of the images and the rest, both in random order."""
    return load_images(name, "", seed=seed)


def _first(images: Images, examples: int) -> Images:
    """Return the first of some images, all for 0; raises ConfigError for more than there are."""
    fits = 0 <= examples <= len(images)
    require(fits, "examples", examples, f"at most {len(images):,}, or 0 for all")
    return images.take(torch.arange(examples or len(images)))


def _examples(images: Images) -> Examples:
    return Examples(images.pixels, images.labels)


def _noisy(
    pixels: Float[Tensor, "n s s"], std: float, *, generator: np.random.Generator
) -> Float[Tensor, "n s s"]:
    return pixels + std * torch.from_numpy(generator.standard_normal(pixels.shape)).to(pixels)


def _chain(**parts: nn.Module) -> nn.Sequential:
    assert list(parts)[-1] == HEAD
    return nn.Sequential(OrderedDict(parts))

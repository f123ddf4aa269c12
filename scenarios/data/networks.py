"""Small networks for the scenarios, initialized from a generator instead of the global state."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.errors import ConfigError
from fedzo.objectives.same_bits import product

ModelName = Literal["mlp", "cnn", "lenet"]
ActivationName = Literal["relu", "softplus"]


def make_cnn(side: int, num_classes: int) -> nn.Module:
    """Return a strided CNN, 8 and 16 channels, for images [b, 1, side, side], without storage.

    Strides instead of pooling make it fast on one thread: over 100,000 28x28 images a second.
    """
    half = (side + 1) // 2
    last = (half + 1) // 2
    with torch.device("meta"):
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * last * last, num_classes),
        )


def make_lenet(side: int, num_classes: int) -> nn.Module:
    """Return LeNet for images [b, 1, side, side], without storage; 44,426 parameters for 28x28.

    LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition",
    1998, with ReLU and largest values instead of means, as in the code of FedAMD. Raises
    ConfigError for images below 16x16.
    """
    last = ((side - 4) // 2 - 4) // 2
    if last < 1:
        raise ConfigError(f"model=lenet needs images of 16x16 or more, not {side}x{side}; use cnn")
    with torch.device("meta"):
        return nn.Sequential(
            nn.Conv2d(1, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * last * last, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )


def make_pooled_cnn(side: int, num_classes: int) -> nn.Module:
    """Return a CNN with pooling, 16 and 32 channels, without storage; 114,314 parameters for 28x28.

    The victim of attacks on one model: slower and better than `make_cnn`.
    """
    last = side // 2 // 2
    with torch.device("meta"):
        return nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * last * last, 64),
            nn.ReLU(),
            nn.Linear(64, num_classes),
        )


def make_network(name: ModelName, side: int, num_classes: int) -> nn.Module | None:
    """Return the module of a name; None for the MLP, which is a formula."""
    if name == "mlp":
        return None
    return make_cnn(side, num_classes) if name == "cnn" else make_lenet(side, num_classes)


def mlp_shapes(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the parameter shapes of an MLP: weight [in, out] and bias [out] of each layer."""
    return [shape for pair in pairwise(sizes) for shape in (pair, pair[1:])]


def mlp_parameters(
    x: Float[Tensor, "*n d"], sizes: Sequence[int]
) -> list[tuple[Float[Tensor, "*n i o"], Float[Tensor, "*n 1 o"]]]:
    """Return the weight and the bias of each layer of MLPs given as flat vectors."""
    shapes = mlp_shapes(sizes)
    parts = x.split([math.prod(shape) for shape in shapes], dim=-1)
    return [
        (weight.unflatten(-1, shape), bias.unsqueeze(-2))
        for weight, bias, shape in zip(parts[::2], parts[1::2], shapes[::2], strict=True)
    ]


def mlp_forward(
    x: Float[Tensor, "*n d"],
    inputs: Float[Tensor, "*#n b i"],
    sizes: Sequence[int],
    activation: ActivationName = "relu",
) -> Float[Tensor, "*n b c"]:
    """Apply MLPs given as flat vectors, one for each leading index of x, to their inputs."""
    hidden = inputs
    for layer, (weight, bias) in enumerate(mlp_parameters(x, sizes)):
        hidden = product(activate(hidden, activation) if layer else hidden, weight) + bias
    return hidden


def activate(z: Float[Tensor, "*n"], name: ActivationName) -> Float[Tensor, "*n"]:
    """Apply an activation; softplus is log(1 + e^z)."""
    return z.relu() if name == "relu" else torch.nn.functional.softplus(z)


def activation_slope(z: Float[Tensor, "*n"], name: ActivationName) -> Float[Tensor, "*n"]:
    """Return the derivative of an activation; 0 of relu at 0, as torch has it."""
    return (z > 0).to(z.dtype) if name == "relu" else z.sigmoid()


def random_parameters(
    shapes: Sequence[tuple[int, ...]], fans: Sequence[int], *, generator: np.random.Generator
) -> Float[Tensor, " d"]:
    """Draw each tensor uniform in +-1/sqrt(fan_in), torch's own default, as one float32 vector."""
    parts = [
        generator.uniform(-(fan**-0.5), fan**-0.5, size=math.prod(shape))
        for shape, fan in zip(shapes, fans, strict=True)
    ]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def random_mlp(sizes: Sequence[int], *, generator: np.random.Generator) -> Float[Tensor, " d"]:
    """Draw the parameters of an MLP."""
    fans = [fan for fan in sizes[:-1] for _ in range(2)]
    return random_parameters(mlp_shapes(sizes), fans, generator=generator)


def random_module(module: nn.Module, *, generator: np.random.Generator) -> Float[Tensor, " d"]:
    """Draw parameters for a module whose layers are convolutions and linear maps with biases."""
    shapes = [tuple(p.shape) for p in module.parameters()]
    weights = [shape for shape in shapes if len(shape) > 1]
    fans = [math.prod(shape[1:]) for shape in weights for _ in range(2)]
    return random_parameters(shapes, fans, generator=generator)


def load_parameters(module: nn.Module, x: Float[Tensor, " d"]) -> nn.Module:
    """Give a module storage and the parameters of a vector; returns it frozen, for evaluation."""
    module.to_empty(device=x.device).to(x.dtype)
    torch.nn.utils.vector_to_parameters(x, module.parameters())
    return module.eval().requires_grad_(False)

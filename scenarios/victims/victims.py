"""The models under attack: one small CNN a client, each trained on its own class-skewed shard.

With P = k/C of the classes on every client, examples of a class are divided evenly among its
clients. Label smoothing keeps the logits of classes that a client has never seen within reach: with
plain cross-entropy almost no image has a positive margin averaged over clients. Training is done
once for given settings and kept in the user's cache directory.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from fedzo.errors import CheckpointError
from fedzo.objectives.objective import flatten_parameters
from fedzo.randomness import stream
from fedzo.records.checkpoint import Checkpoint, has_checkpoint, load_checkpoint, save_checkpoint
from scenarios.data.images import Images
from scenarios.data.networks import load_parameters, make_cnn, make_pooled_cnn, random_module
from scenarios.data.partition import Partition, split

Architecture = Literal["strided", "pooled"]
_MAKERS = {"strided": make_cnn, "pooled": make_pooled_cnn}
_RECIPE = 1
"""Raise when the training below changes: old cached victims are then not taken."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class VictimSettings:
    """Everything that the trained parameters depend on, besides the images."""

    num_victims: int
    classes_per_client: int
    seed: int
    epochs: int = 25
    batch_size: int = 32
    lr: float = 2e-3
    label_smoothing: float = 0.1
    architecture: Architecture = "strided"
    recipe: int = _RECIPE


def get_victims(images: Images, settings: VictimSettings, cache_dir: str) -> list[nn.Module]:
    """Return trained victims, from the cache if they are there; "" is the user's cache."""
    parameters = cached_parameters(
        lambda: _train_all(images, settings),
        folder=Path(cache_dir or platformdirs.user_cache_dir("fedzo")) / "victims",
        images=images,
        facts=asdict(settings),
        what=f"{settings.num_victims} victims",
    )
    side, classes = images.pixels.shape[-1], images.num_classes
    make = _MAKERS[settings.architecture]
    return [load_parameters(make(side, classes), row) for row in parameters]


def cached_parameters(
    train: Callable[[], Float[Tensor, "n d"]],
    *,
    folder: Path,
    images: Images,
    facts: Mapping[str, Any],
    what: str,
) -> Float[Tensor, "n d"]:
    """Return what training on these images gives, from the cache if it is there."""
    folder = folder / _fingerprint(images, facts)
    parameters = _cached(folder)
    if parameters is None:
        logger.info("training %s; this is done once, they are kept in %s", what, folder)
        parameters = train()
        save_checkpoint(folder, Checkpoint({"parameters": parameters}, facts))
    return parameters


def _fingerprint(images: Images, facts: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps(facts, sort_keys=True).encode())
    digest.update(images.pixels.numpy().tobytes())
    digest.update(images.labels.numpy().tobytes())
    return digest.hexdigest()


def _cached(folder: Path) -> Float[Tensor, "n d"] | None:
    if not has_checkpoint(folder):
        return None
    try:
        return load_checkpoint(folder).tensors["parameters"]
    except CheckpointError as error:
        logger.warning("the cached victims are damaged and are trained again: %s", error)
        return None


def _train_all(images: Images, settings: VictimSettings) -> Float[Tensor, "n d"]:
    partition = Partition(kind="by_label", classes_per_client=settings.classes_per_client)
    generator = stream(settings.seed, "victims", "partition")
    shards = split(images.labels.numpy(), settings.num_victims, partition, generator=generator)
    return torch.stack(
        [
            _train(images.take(shard), images.num_classes, i, settings)
            for i, shard in enumerate(shards)
        ]
    )


def _train(
    images: Images, num_classes: int, victim: int, settings: VictimSettings
) -> Float[Tensor, " d"]:
    """Train one victim on its shard."""
    return fit_network(
        _MAKERS[settings.architecture](images.pixels.shape[-1], num_classes),
        images,
        Training(settings.epochs, settings.batch_size, settings.lr, settings.label_smoothing),
        generator=stream(settings.seed, "victims", "training", victim),
    )


@dataclass(frozen=True, slots=True)
class Training:
    """How a network is trained by Adam."""

    epochs: int
    batch_size: int
    lr: float
    label_smoothing: float = 0.0


def fit_network(
    model: nn.Module, images: Images, training: Training, *, generator: np.random.Generator
) -> Float[Tensor, " d"]:
    """Draw the parameters of a network without storage and train them on images."""
    return fit(model, images.pixels.unsqueeze(1), images.labels, training, generator=generator)


def fit(
    model: nn.Module,
    inputs: Shaped[Tensor, "n ..."],
    labels: Int[Tensor, " n"],
    training: Training,
    *,
    generator: np.random.Generator,
) -> Float[Tensor, " d"]:
    """Draw the parameters of a network without storage and train them to answer the labels."""
    model = load_parameters(model, random_module(model, generator=generator))
    model.train().requires_grad_(True)
    loss = nn.CrossEntropyLoss(label_smoothing=training.label_smoothing)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.lr)
    for _ in range(training.epochs):
        for batch in _batches(len(labels), training.batch_size, generator):
            optimizer.zero_grad()
            loss(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return flatten_parameters(model)


def _batches(count: int, size: int, generator: np.random.Generator) -> Sequence[np.ndarray]:
    return np.array_split(generator.permutation(count), max(1, round(count / size)))

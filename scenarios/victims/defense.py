"""ZO-AE-DS: defend a model that can only be queried, by a denoiser trained through it.

    x + noise -> denoiser D -> encoder E -> h -> decoder -> black box        (all but the last ours)
    loss = CE(black box(decoder(h)), the black box's own answer to x)
    dloss/dh by zeroth-order estimates in the latent space; D and E by the chain rule

Zhang et al., "How to Robustify Black-Box ML Models? A Zeroth-Order Optimization Perspective", ICLR
2022. The autoencoder and the denoiser are trained first on images alone, by squared error, which
asks the black box nothing. Shapes: images [b, c, h, w], h [b, k]. Queries: one an image for its
answer, and `ZoGradientConfig.num_queries(k)` an image and step.

Differs from the paper: networks of three layers for small images; D, E and the decoder are
trained without the black box at once, so that zeroth-order steps only have to adjust them.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fedzo.attacks.goal import log_probabilities
from fedzo.attacks.region import Shape
from fedzo.attacks.subject import shape_of
from fedzo.attacks.victims.victim import Victim, ask_all
from fedzo.attacks.victims.wrappers import Meter
from fedzo.config import check_types, require
from fedzo.errors import ConfigError
from fedzo.estimation.schemes import MemorylessName
from fedzo.estimation.zo_gradient import ZoGradientConfig, zo_gradient
from fedzo.randomness import stream
from fedzo.records.checkpoint import Checkpoint, has_checkpoint, load_checkpoint, save_checkpoint
from fedzo.used_with import UsedWith, above, other_than
from scenarios.data.networks import load_parameters, random_module


@dataclass(frozen=True, slots=True, kw_only=True)
class DefenseConfig:
    """Settings of the training.

    sigma: of the noise, in pixel units of [0, 1]. latent: k. epochs: of the training without the
    black box; steps, batch_size, lr: of the zeroth-order one (Adam). estimator, num_directions, mu:
    see fedzo.estimation.zo_gradient. seed: of everything.
    """

    sigma: float = 0.5
    latent: int = 32
    epochs: int = 6
    steps: int = 300
    batch_size: int = 32
    lr: float = 1e-3
    estimator: MemorylessName = "coordinate"
    num_directions: int = 20
    mu: float = 0.05
    seed: int = 0
    USED_WITH: ClassVar[UsedWith] = {
        **dict.fromkeys(("batch_size", "lr", "estimator", "mu"), above("steps", 0)),
        "num_directions": (above("steps", 0), other_than("estimator", "coordinate")),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.sigma < math.inf, "sigma", self.sigma, "positive and finite")
        require(0 < self.lr < math.inf, "lr", self.lr, "positive and finite")
        for name in ("latent", "epochs", "batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.steps >= 0, "steps", self.steps, "0 (without the black box) or more")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        self.gradient()

    def gradient(self) -> ZoGradientConfig:
        """Return how gradients are estimated; raises ConfigError for values out of range."""
        return ZoGradientConfig(
            estimator=self.estimator, num_directions=self.num_directions, mu=self.mu
        )


class Purifier(nn.Module):
    """Denoiser, encoder and decoder for images whose height and width divide by 4."""

    def __init__(self, shape: Shape, latent: int) -> None:
        super().__init__()
        channels, height, width = shape
        if height % 4 or width % 4:
            raise ConfigError(
                f"images of shape {shape} cannot be purified; height and width must divide by 4"
            )
        small = (height // 4, width // 4)
        self.shape = shape
        self.denoiser = nn.Sequential(
            nn.Conv2d(channels, 16, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, channels, 3, padding=1),
        )
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * small[0] * small[1], latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, 32 * small[0] * small[1]),
            nn.ReLU(),
            nn.Unflatten(1, (32, *small)),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, channels, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def encode(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the latent code of noisy images."""
        codes: Tensor = self.encoder(self.denoiser(images))
        return codes

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return purified images; raises ConfigError for those of another shape."""
        if tuple(images.shape[1:]) != tuple(self.shape):
            raise ConfigError(
                f"the defense was made for images of shape {tuple(self.shape)}, and these have"
                f" {tuple(images.shape[1:])}; make one for them with `fedzo defend`"
            )
        purified: Tensor = self.decoder(self.encode(images))
        return purified


@dataclass(frozen=True, slots=True)
class Defense:
    """A trained purifier, how it was trained, and the queries that this has cost."""

    purifier: Purifier
    config: DefenseConfig
    queries: int
    losses: list[float] = field(default_factory=list)


def train_defense(
    victim: Victim,
    images: Float[Tensor, "n c h w"],
    config: DefenseConfig,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Defense:
    """Train a purifier for a victim that tells scores; `progress` is told (stage, done, of).

    Raises ConfigError for a victim that tells none, and images that no purifier fits.
    """
    if victim.tells not in ("logits", "probabilities"):
        raise ConfigError(f"a defense is trained through scores; this victim tells {victim.tells}")
    meter, report = Meter(victim), progress or _silent
    purifier = _purifier(shape_of(images), config)
    _train_without(purifier, images, config, report)
    losses = _train_through(purifier, meter, images, config, report)
    purifier.eval().requires_grad_(False)
    return Defense(purifier, config, meter.queries, losses)


def _silent(stage: str, done: int, of: int) -> None:
    """Report nothing."""


def _purifier(shape: Shape, config: DefenseConfig) -> Purifier:
    with torch.device("meta"):
        purifier = Purifier(shape, config.latent)
    drawn = random_module(purifier, generator=stream(config.seed, "defense", "init"))
    load_parameters(purifier, drawn).requires_grad_(True)
    return purifier


def _train_without(
    purifier: Purifier,
    images: Float[Tensor, "n c h w"],
    config: DefenseConfig,
    report: Callable[[str, int, int], None],
) -> None:
    """Train by squared error: the denoiser alone, and all three together."""
    generator = stream(config.seed, "defense", "images")
    optimizer = torch.optim.Adam(purifier.parameters(), lr=2e-3)
    for epoch in range(config.epochs):
        for rows in np.array_split(generator.permutation(len(images)), max(1, len(images) // 64)):
            clean = images[torch.from_numpy(rows)]
            denoised = purifier.denoiser(_noisy(clean, config.sigma, generator))
            purified = purifier.decoder(purifier.encoder(denoised))
            loss = (denoised - clean).square().mean() + (purified - clean).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        report("images", epoch + 1, config.epochs)


def _train_through(
    purifier: Purifier,
    victim: Victim,
    images: Float[Tensor, "n c h w"],
    config: DefenseConfig,
    report: Callable[[str, int, int], None],
) -> list[float]:
    """Train denoiser and encoder through the black box; returns the loss of every step."""
    generator = stream(config.seed, "defense", "black box")
    trained = [*purifier.denoiser.parameters(), *purifier.encoder.parameters()]
    optimizer = torch.optim.Adam(trained, lr=config.lr)
    answers: dict[int, int] = {}
    losses = []
    for step in range(config.steps):
        rows = generator.permutation(len(images))[: config.batch_size]
        clean = images[torch.from_numpy(rows)]
        targets = _answers(victim, clean, rows, answers)
        codes = purifier.encode(_noisy(clean, config.sigma, generator))
        each = zo_gradient(
            partial(_stability, purifier, victim, targets),
            codes,
            config.gradient(),
            generator=generator,
        )
        optimizer.zero_grad()
        each.mean().backward()
        optimizer.step()
        losses.append(float(each.detach().mean()))
        report("black box", step + 1, config.steps)
    return losses


def _noisy(
    clean: Float[Tensor, "b c h w"], sigma: float, generator: np.random.Generator
) -> Float[Tensor, "b c h w"]:
    noise = generator.standard_normal(tuple(clean.shape), dtype=np.float32)
    return clean + sigma * torch.from_numpy(noise)


def _answers(
    victim: Victim, clean: Float[Tensor, "b c h w"], rows: Any, known: dict[int, int]
) -> Int[Tensor, " b"]:
    """Return the victim's answers to clean images, each asked for once."""
    new = [i for i, row in enumerate(rows.tolist()) if row not in known]
    if new:
        told = ask_all(victim, clean[new]).labels.tolist()
        known.update({int(rows[i]): label for i, label in zip(new, told, strict=True)})
    return torch.tensor([known[row] for row in rows.tolist()])


def _stability(
    purifier: Purifier,
    victim: Victim,
    targets: Int[Tensor, " b"],
    points: Float[Tensor, "b q k"],
) -> Float[Tensor, "b q"]:
    """Return the cross-entropy of the victim's scores of decoded codes with its clean answers."""
    with torch.no_grad():
        decoded = purifier.decoder(points.flatten(0, 1))
    answers = ask_all(victim, decoded)
    assert answers.scores is not None
    scores = answers.scores.to(points)
    if victim.tells == "probabilities":
        scores = log_probabilities(scores)
    log_p = scores.log_softmax(dim=1)
    wanted = targets.repeat_interleave(points.shape[1]).unsqueeze(1)
    return -log_p.gather(1, wanted).reshape(points.shape[:2])


def save_defense(folder: Path | str, defense: Defense) -> None:
    """Write a defense, for `load_defense`."""
    parameters = torch.nn.utils.parameters_to_vector(defense.purifier.parameters()).detach()
    shape = list(defense.purifier.shape)
    facts = {"shape": shape, "queries": defense.queries, **asdict(defense.config)}
    save_checkpoint(Path(folder), Checkpoint({"parameters": parameters}, facts))


def load_defense(folder: Path | str) -> Defense:
    """Read a defense; raises ConfigError when there is none."""
    folder = Path(folder)
    if not has_checkpoint(folder):
        raise ConfigError(f"{folder} holds no defense; make one with `fedzo defend`")
    stored = load_checkpoint(folder)
    facts = dict(stored.facts)
    queries, side = facts.pop("queries"), facts.pop("side", 0)  # 0.1 knew grey squares alone
    shape = tuple(facts.pop("shape", (1, side, side)))
    config = DefenseConfig(**facts)
    with torch.device("meta"):
        purifier = Purifier(shape, config.latent)
    load_parameters(purifier, stored.tensors["parameters"])
    return Defense(purifier, config, queries)

"""A federated black-box attack: clients that can only query find one perturbation together.

    delta = radius clamp(B (2 x - 1), -1, 1),  x in [0, 1]^d;   image' = clamp(image + delta, 0, 1)
    B = I (d = pixels), or side times the lowest k x k cosine waves of the image plane (d = k^2)
    f_i(x) = logit_i,true(image') - max_{c != true} logit_i,c(image')          (margin of client i)
    F(x) = (1/N) sum_i f_i(x);   success: F(x) < 0

Shu, Lin, Dai & Low, arXiv 2308.04077, section 6.2 and appendix; victims as in scenarios.victims.
Each image is a problem of its own. The start is no perturbation, x = 1/2. Whether the attack has
succeeded is asked of the clients after every round, one query each, counted; the attack on an image
stops there.

Differs from the paper: the start (the paper takes the lower corner of the box), clamping is a
setting, and the images are those with a positive averaged margin, chosen by seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fedzo.cohort import CohortObjective, cohort_of
from fedzo.config import require, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.history import RoundRecord
from fedzo.problem import Problem, Report
from fedzo.randomness import stream
from scenarios.attack_figure import draw_attack
from scenarios.data import DatasetName, Images, load_images
from scenarios.scenario import Suggestions
from scenarios.victims import VictimSettings, get_victims


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackConfig:
    """Settings of the attack.

    dataset, data_dir: see scenarios.data. radius: of the Linf box, in pixel units of [0, 1].
    num_images: attacked one after the other. classes_per_client: the victims' heterogeneity.
    clamp: whether a perturbed image is clamped to [0, 1]. waves: k, 0 for all pixels. victim_seed:
    of the victims' training, apart from the run's seed so that all seeds attack the same victims.
    cache_dir: where trained victims are kept, "" for the user's cache.
    """

    dataset: DatasetName = "mnist5k"
    data_dir: str = ""
    radius: float = 0.2
    num_images: int = 5
    classes_per_client: int = 7
    clamp: bool = True
    waves: int = 0
    epochs: int = 25
    victim_seed: int = 0
    noise_std: float = 0.0
    cache_dir: str = ""

    def __post_init__(self) -> None:
        require(0 < self.radius <= 1, "radius", self.radius, "in (0, 1]")
        require(self.waves >= 0, "waves", self.waves, "0 (all pixels) or more")
        require(self.num_images >= 1, "num_images", self.num_images, "at least 1")
        require(
            self.classes_per_client >= 1,
            "classes_per_client",
            self.classes_per_client,
            "at least 1",
        )
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require_nonnegative("noise_std", self.noise_std)


@dataclass(frozen=True, slots=True)
class MarginObjective:
    """The margin of one victim on one perturbed image; a black box."""

    victim: nn.Module
    image: Float[Tensor, "s s"]
    label: Int[Tensor, ""]
    radius: float
    clamp: bool
    basis: Float[Tensor, "d p"] | None = None
    lower: float = 0.0
    upper: float = 1.0

    @property
    def dim(self) -> int:
        return self.image.numel() if self.basis is None else len(self.basis)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        with torch.no_grad():
            flat = x.reshape(-1, self.dim)
            pixels = perturb(self.image, flat, self.radius, clamp=self.clamp, basis=self.basis)
            logits = self.victim(pixels.unsqueeze(1))
            return margins(logits, self.label.expand(len(logits))).reshape(x.shape[:-1])


def perturb(
    image: Float[Tensor, "s s"],
    x: Float[Tensor, "q d"],
    radius: float,
    *,
    clamp: bool,
    basis: Float[Tensor, "d p"] | None = None,
) -> Float[Tensor, "q s s"]:
    """Return the image under each perturbation."""
    unit = 2 * x - 1
    if basis is not None:
        unit = (unit @ basis).clamp(-1, 1)
    pixels = image + radius * unit.reshape(-1, *image.shape)
    return pixels.clamp(0, 1) if clamp else pixels


def cosine_waves(side: int, count: int) -> Float[Tensor, "d p"]:
    """Return the count^2 lowest two-dimensional cosine waves, flat, of norm `side`.

    The constant wave is 1 in every pixel, so one coefficient can fill the box.
    """
    place = (torch.arange(side) + 0.5) * (math.pi / side)
    waves = torch.cos(torch.arange(count).unsqueeze(1) * place) * math.sqrt(2)
    waves[0] = 1.0
    return torch.einsum("as,bt->abst", waves, waves).reshape(count * count, side * side)


def margins(logits: Float[Tensor, "q c"], labels: Int[Tensor, " q"]) -> Float[Tensor, " q"]:
    """Return the true class's logit minus the largest other one."""
    true = logits.gather(1, labels.unsqueeze(1))
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return (true - others.amax(dim=1, keepdim=True)).squeeze(1)


@dataclass(frozen=True, slots=True)
class ImageProblem:
    """The attack on one image."""

    index: int
    initial_x: Float[Tensor, " d"]
    lower: float = 0.0
    upper: float = 1.0
    asks_clients: bool = True

    def report(self, x: Float[Tensor, " d"], values: Float[Tensor, " n"] | None) -> Report:
        assert values is not None
        margin = float(values.double().mean())
        return Report(margin, {"success": float(margin < 0)}, solved=margin < 0)


class AttackScenario:
    """The scenario `attack`."""

    black_box = True
    default_clients: ClassVar[int] = 10
    default_rounds: ClassVar[int] = 100
    suggested: ClassVar[Suggestions] = {
        "momentum": {"client.gradient": "zeroth_order"},
        "anchor": {"client.gradient": "zeroth_order"},
        "gradient": {"client.gradient": "zeroth_order"},
        "gradient_difference": {"client.gradient": "zeroth_order", "strategy.unit": "client"},
        "zeroth_order": {
            "strategy.local_steps": 1,
            "strategy.local_lr": 1.0,
            "strategy.server_optimizer": "adam",
            "strategy.server_lr": 0.1,
            "client.optimizer": "sgd",
            "client.num_directions": 10,
        },
        "probes": {"strategy.server_lr": 0.1, "client.num_directions": 10},
        "surrogate": {
            "strategy.num_directions": 5,
            "strategy.probe_radius": 0.1,
            "strategy.initial_step": 0.3,
            "strategy.max_step": 0.5,
            "strategy.min_step": 0.03,
            "strategy.line_search": "3,10",
        },
    }

    def __init__(self, config: AttackConfig, *, num_clients: int, seed: int) -> None:
        self._config = config
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        train, test = load_images(config.dataset, config.data_dir, seed=config.victim_seed)
        settings = VictimSettings(
            num_victims=num_clients,
            classes_per_client=config.classes_per_client,
            seed=config.victim_seed,
            epochs=config.epochs,
        )
        self.victims = get_victims(train, settings, config.cache_dir)
        self.images = self._choose(test, seed)
        side = self.images.pixels.shape[-1]
        require(config.waves <= side, "waves", config.waves, f"at most {side}, the image's side")
        self._basis = cosine_waves(side, config.waves) if config.waves else None

    @property
    def num_problems(self) -> int:
        return len(self.images)

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        config = self._config
        image, label = self.images.pixels[problem], self.images.labels[problem]
        return cohort_of(
            [
                MarginObjective(
                    self.victims[client], image, label, config.radius, config.clamp, self._basis
                )
                for client in client_ids
            ]
        )

    def problem(self, index: int) -> Problem:
        dim = self.images.pixels[index].numel() if self._basis is None else len(self._basis)
        return ImageProblem(index, torch.full((dim,), 0.5))

    def summarize(self, last: Sequence[RoundRecord]) -> dict[str, float]:
        """Return success rate, and mean total queries and rounds to success or to giving up."""
        count = len(last)
        return {
            "success_rate": sum(record.metrics["success"] for record in last) / count,
            "mean_queries": sum(record.queries for record in last) / count,
            "mean_rounds": sum(record.round_index for record in last) / count,
        }

    def draw(
        self, path: Path, solutions: Sequence[Float[Tensor, " d"]], history: Sequence[RoundRecord]
    ) -> None:
        """Draw images, perturbations and margins."""
        config = self._config
        perturbed = [
            perturb(image, x.unsqueeze(0), config.radius, clamp=config.clamp, basis=self._basis)[0]
            for image, x in zip(self.images.pixels, solutions, strict=False)
        ]
        after = [
            float(self._averaged_margins(image.unsqueeze(0), label.reshape(1)))
            for image, label in zip(perturbed, self.images.labels, strict=False)
        ]
        draw_attack(path, self.images, perturbed, after, history)

    def _averaged_margins(
        self, pixels: Float[Tensor, "q s s"], labels: Int[Tensor, " q"]
    ) -> Float[Tensor, " q"]:
        with torch.no_grad():
            scores = [victim(pixels.unsqueeze(1)) for victim in self.victims]
        return torch.stack([margins(s, labels) for s in scores]).mean(dim=0)

    def _choose(self, test: Images, seed: int) -> Images:
        """Choose images with a positive averaged margin; raises ConfigError if they are too few."""
        margin = self._averaged_margins(test.pixels, test.labels)
        usable = (margin > 0).nonzero().flatten().numpy()
        wanted = self._config.num_images
        if len(usable) < wanted:
            raise ConfigError(
                f"scenario.num_images={wanted} exceeds the {len(usable)} of {len(test)} test images"
                " with a positive averaged margin; lower it"
            )
        return test.take(stream(seed, "attack", "images").permutation(usable)[:wanted])

"""A federated black-box attack: clients that can only query find one perturbation together.

    delta = radius clamp(B (2 x - 1), -1, 1),  x in [0, 1]^d;   image' = clamp(image + delta, 0, 1)
    B = I (d = pixels), or side times the lowest k x k cosine waves of the image plane (d = k^2)
    f_i(x) = logit_i,true(image') - max_{c != true} logit_i,c(image')          (margin of client i)
    F(x) = (1/N) sum_i f_i(x);   success: F(x) < 0;   the attack goes on to F(x) < -confidence

Shu, Lin, Dai & Low, arXiv 2308.04077, section 6.2 and appendix; victims as in
scenarios.victims.victims. Each image is a problem of its own. The start is no perturbation, x =
1/2. Whether the attack has succeeded is asked of the clients after every round, one query each,
counted; the attack on an image stops there. Images are chosen by the victims that are trained here;
live ones are not asked.

What leaks: every client sees the points that it is asked at, hence the image and all perturbations;
the server sees margins (square, thompson, fzoos with values), slopes along directions that it knows
(seedzo), or whole gradient estimates and models (fedzo, scaffold), never a victim, its data or its
scores of other classes. A margin tells how sure a victim is of the true class.

Differs from the paper: the start (the paper takes the lower corner of the box), clamping is a
setting, and the images are those with a positive averaged margin, chosen by seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.victims.remote import RemoteVictim
from fedzo.attacks.victims.victim import ModuleVictim, Victim
from fedzo.config import check_types, require, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.problem import Problem, Report
from fedzo.objectives.transport import Http
from fedzo.protocol.questions.anchored import AnchorConfig
from fedzo.protocol.questions.private import ClippedConfig
from fedzo.protocol.questions.probes import ProbesConfig
from fedzo.protocol.questions.surrogate import SurrogateConfig
from fedzo.protocol.questions.training_config import (
    GradientConfig,
    MomentumConfig,
    ZerothOrderConfig,
)
from fedzo.randomness import stream
from fedzo.records.history import RoundRecord
from fedzo.used_with import UsedWith, one_of
from scenarios.data.images import DatasetName, Images, load_images
from scenarios.problems.attack_objective import MarginObjective, margins, perturb
from scenarios.problems.scenario import Suggestions
from scenarios.victims.victims import Architecture, VictimSettings, get_victims


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackConfig:
    """Settings of the attack.

    dataset, data_dir: see scenarios.data.images. radius: of the Linf box, in pixel units of [0, 1].
    num_images: attacked one after the other. classes_per_client: the victims' heterogeneity.
    confidence: the averaged margin below 0 at which an attack stops; more of it costs queries and
    fools more victims that took no part (Carlini & Wagner 2017). clamp: whether a perturbed image
    is clamped to [0, 1]. waves, blocks: k, 0 for all pixels. victim_seed: of the victims' training,
    apart from the run's seed so that all seeds attack the same victims. architectures: strided,
    pooled, or mixed, one after the other. endpoints: addresses of live victims that tell logits
    (fedzo.attacks.victims.remote), commas between them: those of the last clients. held_out:
    victims that take no part, on which the perturbation is tried when it is reported. cache_dir:
    where trained victims are kept, "" for the user's cache.
    """

    dataset: DatasetName = "mnist5k"
    data_dir: str = ""
    radius: float = 0.2
    num_images: int = 5
    classes_per_client: int = 7
    clamp: bool = True
    confidence: float = 0.0
    waves: int = 0
    blocks: int = 0
    architectures: Literal["strided", "pooled", "mixed"] = "strided"
    endpoints: str = ""
    held_out: int = 0
    epochs: int = 25
    victim_seed: int = 0
    noise_std: float = 0.0
    cache_dir: str = ""
    USED_WITH: ClassVar[UsedWith] = {
        "data_dir": one_of("dataset", "idx"),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.radius <= 1, "radius", self.radius, "in (0, 1]")
        for name in ("waves", "blocks", "held_out"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 (none) or more")
        require(not (self.waves and self.blocks), "blocks", self.blocks, "0 beside waves")
        require(self.num_images >= 1, "num_images", self.num_images, "at least 1")
        require(
            self.classes_per_client >= 1,
            "classes_per_client",
            self.classes_per_client,
            "at least 1",
        )
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require_nonnegative("noise_std", self.noise_std)
        require_nonnegative("confidence", self.confidence)


@dataclass(frozen=True, slots=True)
class ImageProblem:
    """The attack on one image."""

    index: int
    initial_x: Float[Tensor, " d"]
    lower: float = 0.0
    upper: float = 1.0
    asks_clients: bool = True
    confidence: float = 0.0
    image: bool = True
    transfer: Callable[[Float[Tensor, " d"]], float] | None = None

    def report(self, x: Float[Tensor, " d"], values: Float[Tensor, " n"] | None) -> Report:
        assert values is not None
        value = float(values.double().mean())
        metrics = {"success": float(value < 0)}
        if self.transfer:
            metrics["transfer"] = self.transfer(x)
        return Report(value, metrics, solved=value < -self.confidence)


class AttackScenario:
    """The scenario `attack`."""

    black_box = True
    default_clients: ClassVar[int] = 10
    default_rounds: ClassVar[int] = 100
    suggested: ClassVar[Suggestions] = {
        MomentumConfig: {"client.gradient": "zeroth_order"},
        AnchorConfig: {"client.gradient": "zeroth_order"},
        GradientConfig: {"client.gradient": "zeroth_order"},
        ClippedConfig: {"client.gradient": "zeroth_order", "strategy.unit": "client"},
        ZerothOrderConfig: {
            "strategy.local_steps": 1,
            "strategy.local_lr": 1.0,
            "strategy.server_optimizer": "adam",
            "strategy.server_lr": 0.1,
            "client.optimizer": "sgd",
            "client.num_directions": 10,
        },
        ProbesConfig: {"strategy.server_lr": 0.1, "client.num_directions": 10},
        SurrogateConfig: {
            "strategy.num_directions": 5,
            "strategy.probe_radius": 0.1,
            "strategy.initial_step": 0.3,
            "strategy.max_step": 0.5,
            "strategy.min_step": 0.03,
            "strategy.line_search": "3,10",
            "strategy.lengthscale": 1.5,
        },
    }

    def __init__(self, config: AttackConfig, *, num_clients: int, seed: int) -> None:
        self._config = config
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        train, test = load_images(config.dataset, config.data_dir, seed=config.victim_seed)
        addresses = [a for a in config.endpoints.split(",") if a]
        own = num_clients - len(addresses)
        require(own >= 1, "endpoints", config.endpoints, f"fewer than the {num_clients} clients")
        self.victims = self._trained(train, own, config.victim_seed)
        self.live = [RemoteVictim(transport=Http(url=address)) for address in addresses]
        self.held_out = self._trained(train, config.held_out, config.victim_seed + 1)
        self.images = self._choose(test, seed)
        self._basis = self._make_basis(self.images.pixels.shape[-1])

    def _trained(self, images: Images, count: int, seed: int) -> list[Victim]:
        """Return so many victims trained in this place."""
        config = self._config
        names: list[Architecture] = ["strided", "pooled"]
        if config.architectures != "mixed":
            names = [config.architectures]
        if not count:
            return []
        families = [
            get_victims(
                images,
                VictimSettings(
                    num_victims=count,
                    classes_per_client=config.classes_per_client,
                    seed=seed,
                    epochs=config.epochs,
                    architecture=name,
                ),
                config.cache_dir,
            )
            for name in names
        ]
        return [ModuleVictim(families[i % len(families)][i]) for i in range(count)]

    def _make_basis(self, side: int) -> Float[Tensor, "d p"] | None:
        for name in ("waves", "blocks"):
            count = getattr(self._config, name)
            require(count <= side, name, count, f"at most {side}, the image's side")
            if count:
                return Coordinates(name, count).basis((1, side, side))
        return None

    @property
    def num_problems(self) -> int:
        return len(self.images)

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        config = self._config
        image, label = self.images.pixels[problem], self.images.labels[problem]
        everyone = [*self.victims, *self.live]
        return cohort_of(
            [
                MarginObjective(
                    everyone[client], image, label, config.radius, config.clamp, self._basis
                )
                for client in client_ids
            ]
        )

    def problem(self, index: int) -> Problem:
        dim = self.images.pixels[index].numel() if self._basis is None else len(self._basis)
        transfer = self._transfer(index) if self.held_out else None
        return ImageProblem(
            index,
            torch.full((dim,), 0.5),
            confidence=self._config.confidence,
            image=not self._config.waves,
            transfer=transfer,
        )

    def _transfer(self, index: int) -> Callable[[Float[Tensor, " d"]], float]:
        """Return how the share of held-out victims that an x fools is found."""
        image, label = self.images.pixels[index], self.images.labels[index]
        config = self._config

        def share(x: Float[Tensor, " d"]) -> float:
            flat = x.unsqueeze(0)
            pixels = perturb(image, flat, config.radius, clamp=config.clamp, basis=self._basis)
            fooled = [margins(victim, pixels, label) < 0 for victim in self.held_out]
            return float(torch.cat(fooled).double().mean())

        return share

    def summarize(self, last: Sequence[RoundRecord]) -> dict[str, float]:
        """Return success rate, and mean total queries and rounds to success or to giving up.

        transfer_rate: share of held-out victims that the last perturbations fool.
        """
        count = len(last)
        transfer = [r.metrics["transfer"] for r in last if "transfer" in r.metrics]
        success = [r.metrics["success"] for r in last if "success" in r.metrics]
        return {
            **({"transfer_rate": sum(transfer) / count} if transfer else {}),
            **({"success_rate": sum(success) / count} if success else {}),
            "mean_queries": sum(record.queries for record in last) / count,
            "mean_rounds": sum(record.round_index for record in last) / count,
        }

    def draw(
        self, path: Path, solutions: Sequence[Float[Tensor, " d"]], history: Sequence[RoundRecord]
    ) -> None:
        """Draw images, perturbations and margins."""
        from scenarios.problems.attack_figure import draw_attack  # matplotlib: for who draws

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
        return torch.stack([margins(v, pixels, labels) for v in self.victims]).mean(dim=0)

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

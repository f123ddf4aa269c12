"""A federated black-box attack: clients that can only query find one perturbation together.

    delta = radius clamp(B (2 x - 1), -1, 1),  x in [0, 1]^d;   image' = clamp(image + delta, 0, 1)
    B = I (d = pixels), or side times the lowest k x k cosine waves of the image plane (d = k^2)
    f_i(x) = logit_i,true(image') - max_{c != true} logit_i,c(image')          (margin of client i)
    F(x) = (1/N) sum_i f_i(x);   success: F(x) < 0;   the attack goes on to F(x) < -confidence

Shu, Lin, Dai & Low, arXiv 2308.04077, section 6.2 and appendix; victims as in
scenarios.victims.victims, or of photographs (scenarios.problems.attack_victims), whose colors
change alike. Each image is a problem of its own. The start is no perturbation, x =
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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.victims.remote import RemoteVictim
from fedzo.attacks.victims.victim import Victim
from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.problem import Problem, Report
from fedzo.objectives.transport import Http
from fedzo.protocol.questions.probes import ProbesConfig
from fedzo.protocol.questions.surrogate import SurrogateConfig
from fedzo.protocol.questions.training_config import ZerothOrderConfig
from fedzo.randomness import stream
from fedzo.records.history import RoundRecord
from scenarios.data.image_folder import LabelledImages
from scenarios.data.images import Images, load_images
from scenarios.data.photo_networks import photo_classes
from scenarios.data.photos import load_photos
from scenarios.problems.attack_config import AttackConfig
from scenarios.problems.attack_objective import MarginObjective, margins, perturb
from scenarios.problems.attack_victims import photo_victims, trained_victims
from scenarios.problems.scenario import WITHOUT_GRADIENTS, Suggestions
from scenarios.victims.victims import VictimSettings

_PHOTO_SIDE = 224


@dataclass(frozen=True, slots=True)
class ImageProblem:
    """The attack on one image.

    noise_std: of a victim's answer; F counts as below 0, or below -confidence, where it is so by
    three standard deviations of its noise.
    """

    index: int
    initial_x: Float[Tensor, " d"]
    lower: float = 0.0
    upper: float = 1.0
    asks_clients: bool = True
    confidence: float = 0.0
    noise_std: float = 0.0
    image: bool = True
    transfer: Callable[[Float[Tensor, " d"]], float] | None = None

    @property
    def noisy(self) -> bool:
        """Whether what x was chosen by is no fair judge of it."""
        return self.noise_std > 0

    def report(self, x: Float[Tensor, " d"], values: Float[Tensor, " n"] | None) -> Report:
        assert values is not None
        value = float(values.double().mean())
        surely = value + 3 * self.noise_std / math.sqrt(len(values))
        metrics = {"success": float(surely < 0)}
        if self.transfer:
            metrics["transfer"] = self.transfer(x)
        return Report(value, metrics, solved=surely < -self.confidence)


class AttackScenario:
    """The scenario `attack`."""

    black_box = True
    default_clients: ClassVar[int] = 10
    default_rounds: ClassVar[int] = 100
    suggested: ClassVar[Suggestions] = {
        **WITHOUT_GRADIENTS,
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
        if config.dataset == "photos":
            train, test = None, replace(load_photos(_PHOTO_SIDE), classes=photo_classes())
        else:
            train, grey = load_images(config.dataset, config.data_dir, seed=config.victim_seed)
            test = LabelledImages(images=grey.pixels.unsqueeze(1), labels=grey.labels)
        addresses = [a for a in config.endpoints.split(",") if a]
        own = num_clients - len(addresses)
        require(own >= 1, "endpoints", config.endpoints, f"fewer than the {num_clients} clients")
        self.victims, self.held_out = self._make_victims(train, own)
        self.live = [RemoteVictim(transport=Http(url=address)) for address in addresses]
        self.images = self._choose(test, seed)
        self._basis = self._make_basis(self.images.images.shape[-1])

    def _make_victims(
        self, train: Images | None, count: int
    ) -> tuple[Sequence[Victim], Sequence[Victim]]:
        """Return so many victims that take part, and those that do not."""
        config = self._config
        if train is None:
            return photo_victims(
                _PHOTO_SIDE,
                count,
                config.held_out,
                networks=config.networks,
                crop=config.crop,
                seed=config.victim_seed,
            )
        first, second = (
            trained_victims(
                train,
                VictimSettings(
                    num_victims=number,
                    classes_per_client=config.classes_per_client,
                    seed=config.victim_seed + apart,
                    epochs=config.epochs,
                ),
                config.architectures,
                config.cache_dir,
            )
            for apart, number in enumerate((count, config.held_out))
        )
        return first, second

    def _make_basis(self, side: int) -> Float[Tensor, "d p"] | None:
        for name in ("waves", "blocks"):
            count = getattr(self._config, name)
            require(count <= side, name, count, f"at most {side}, the image's side")
            if count:
                return Coordinates(name, count).basis((1, side, side))
        return None

    @property
    def num_problems(self) -> int:
        return len(self.images.labels)

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        config = self._config
        image, label = self.images.images[problem], self.images.labels[problem]
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
        dim = self.images.images[index, 0].numel() if self._basis is None else len(self._basis)
        transfer = self._transfer(index) if self.held_out else None
        return ImageProblem(
            index,
            torch.full((dim,), 0.5),
            confidence=self._config.confidence,
            noise_std=self.noise_std,
            image=not self._config.waves,
            transfer=transfer,
        )

    def _transfer(self, index: int) -> Callable[[Float[Tensor, " d"]], float]:
        """Return how the share of held-out victims that an x fools is found."""
        image, label = self.images.images[index], self.images.labels[index]
        config = self._config

        def share(x: Float[Tensor, " d"]) -> float:
            flat = x.unsqueeze(0)
            pixels = perturb(image, flat, config.radius, clamp=config.clamp, basis=self._basis)
            fooled = [margins(victim, pixels, label) < 0 for victim in self.held_out]
            return float(torch.cat(fooled).double().mean())

        return share

    def summarize(self, last: Sequence[RoundRecord]) -> dict[str, float]:
        """Return success rate, and mean total queries and rounds to success or to giving up.

        success_rate: of the last x, where it is no sample of the clients that says so, and not too
        few of them. transfer_rate: share of held-out victims that the last perturbations fool.
        """
        count = len(last)
        transfer = [r.metrics["transfer"] for r in last if "transfer" in r.metrics]
        success = [_is_success(r) for r in last if "success" in r.metrics]
        return {
            **({"transfer_rate": sum(transfer) / count} if transfer else {}),
            **({"success_rate": sum(success) / count} if success else {}),
            "mean_queries": sum(record.queries for record in last) / count,
            "mean_rounds": sum(record.round_index for record in last) / count,
        }

    def perturbed(self, solutions: Sequence[Float[Tensor, " d"]]) -> list[Float[Tensor, "c s s"]]:
        """Return the images as those solutions change them: the first for the first, and so on."""
        config = self._config
        return [
            perturb(image, x.unsqueeze(0), config.radius, clamp=config.clamp, basis=self._basis)[0]
            for image, x in zip(self.images.images, solutions, strict=False)
        ]

    def draw(
        self, path: Path, solutions: Sequence[Float[Tensor, " d"]], history: Sequence[RoundRecord]
    ) -> None:
        """Draw images, perturbations and margins."""
        from scenarios.problems.attack_figure import draw_attack  # matplotlib: for who draws

        perturbed = self.perturbed(solutions)
        told = {record.problem: record.value for record in history if record.value is not None}
        after = [told.get(index, math.nan) for index in range(len(perturbed))]
        draw_attack(path, self.images, perturbed, after, history)

    def _averaged_margins(
        self, pixels: Float[Tensor, "q c s s"], labels: Int[Tensor, " q"]
    ) -> Float[Tensor, " q"]:
        return torch.stack([margins(v, pixels, labels) for v in self.victims]).mean(dim=0)

    def _choose(self, test: LabelledImages, seed: int) -> LabelledImages:
        """Choose images with a positive averaged margin; raises ConfigError if they are too few."""
        margin = self._averaged_margins(test.images, test.labels)
        usable = (margin > 0).nonzero().flatten().numpy()
        wanted = self._config.num_images
        if len(usable) < wanted:
            raise ConfigError(
                f"scenario.num_images={wanted} exceeds the {len(usable)} of {len(test.labels)} test"
                " images with a positive averaged margin; lower it"
            )
        rows = stream(seed, "attack", "images").permutation(usable)[:wanted]
        return replace(test, images=test.images[rows], labels=test.labels[rows], files=())


def _is_success(record: RoundRecord) -> bool:
    """Return whether all clients that can judge have found an x successful."""
    whole = not record.partial and "standard_error" not in record.metrics
    return whole and record.metrics["success"] == 1.0

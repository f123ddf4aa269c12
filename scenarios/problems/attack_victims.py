"""The victims of a federated attack: networks trained here, or pretrained ones of photographs.

Of photographs every client sees its own crop, a square of a share of the side at a random place,
at its network's size: as cameras would that stand apart. The k-th client has the k-th network, in
turns; victims that take no part have the networks that no client has, where there are any, and
crops of their own.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.victims.victim import AnswerKind, Answers, ModuleVictim, Victim
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.data.images import Images
from scenarios.data.photo_networks import SIDES, photo_network
from scenarios.victims.victims import Architecture, VictimSettings, get_victims


@dataclass(frozen=True, slots=True)
class Cropped:
    """A victim that sees a square of an image, scaled to its own size. box: left, top, side."""

    victim: Victim
    box: tuple[int, int, int]
    size: int

    @property
    def tells(self) -> AnswerKind:
        return self.victim.tells

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        left, top, side = self.box
        seen = images[:, :, top : top + side, left : left + side]
        if side != self.size:
            seen = torch.nn.functional.interpolate(
                seen, size=self.size, mode="bilinear", align_corners=False, antialias=True
            )
        return self.victim.ask(seen.clamp(0, 1))


def trained_victims(
    images: Images,
    settings: VictimSettings,
    architectures: Literal["strided", "pooled", "mixed"],
    cache_dir: str,
) -> list[Victim]:
    """Return so many networks trained in this place, of two architectures in turns if mixed."""
    names: list[Architecture] = ["strided", "pooled"]
    if architectures != "mixed":
        names = [architectures]
    if not settings.num_victims:
        return []
    families = [
        get_victims(
            images,
            replace(settings, architecture=name),
            cache_dir,
        )
        for name in names
    ]
    return [ModuleVictim(families[i % len(families)][i]) for i in range(settings.num_victims)]


def photo_victims(
    side: int, count: int, held_out: int, *, networks: str, crop: float, seed: int
) -> tuple[list[Victim], list[Victim]]:
    """Return the clients' victims and those that take no part, for images of so many pixels.

    Raises ConfigError for a network that is not there.
    """
    names = [name for name in networks.split(",") if name]
    for name in names or [networks]:
        if name not in SIDES:
            raise ConfigError(
                f"scenario.networks has {name!r}; known: {', '.join(SIDES)}, commas between them"
            )
    others = [name for name in SIDES if name not in names[:count]] or names
    boxes = _boxes(side, count + held_out, crop, seed)
    chosen = [names[i % len(names)] for i in range(count)]
    chosen += [others[i % len(others)] for i in range(held_out)]
    made = {name: ModuleVictim(photo_network(name)) for name in dict.fromkeys(chosen)}
    victims: list[Victim] = [
        Cropped(made[name], box, SIDES[name]) for name, box in zip(chosen, boxes, strict=True)
    ]
    return victims[:count], victims[count:]


def _boxes(side: int, count: int, crop: float, seed: int) -> list[tuple[int, int, int]]:
    """Return a crop a victim, the same of the k-th whatever their number."""
    part = max(1, round(crop * side))
    places = (
        stream(seed, "attack", "crop", i).integers(0, side - part + 1, 2) for i in range(count)
    )
    return [(int(left), int(top), part) for left, top in places]

"""Attack a model in one call: what `fedzo.attack` is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack, get_args, overload

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.names import Norm
from fedzo.attacks.region import read_radius
from fedzo.attacks.victims.images import ArrayLayout, Given, read_images
from fedzo.attacks.victims.showing import ChannelsLast
from fedzo.attacks.victims.victim import CallableVictim, ModuleVictim, Victim
from fedzo.config import Scalar, require
from fedzo.errors import ConfigError
from scenarios.attacks.attack_table import AttackTable
from scenarios.attacks.plan import Plan, table_of
from scenarios.attacks.single_attack import (
    Progress,
    Report,
    attack_by_plans,
    attack_victim,
)

Model = nn.Module | Callable[[NDArray[np.float32]], Any] | Victim
Tells = Literal["logits", "probabilities", "labels", ""]
Radius = float | str


class _Options(TypedDict, total=False):
    """What does not say whether one attack is made or a table of them."""

    norm: Norm
    query_budget: int
    target: int | None
    num_images: int | None
    tells: Tells
    layout: ArrayLayout
    seed: int
    settings: Mapping[str, Scalar] | None
    progress: Progress | None


@overload
def attack(
    model: Model,
    images: Given,
    labels: Given,
    *,
    radius: Radius = ...,
    attacker: str = ...,
    **options: Unpack[_Options],
) -> Report: ...
@overload
def attack(
    model: Model,
    images: Given,
    labels: Given,
    *,
    radius: Radius | Sequence[Radius] = ...,
    attacker: list[str] | tuple[str, ...],
    **options: Unpack[_Options],
) -> AttackTable: ...
@overload
def attack(
    model: Model,
    images: Given,
    labels: Given,
    *,
    radius: list[Radius] | tuple[Radius, ...],
    attacker: str | Sequence[str] = ...,
    **options: Unpack[_Options],
) -> AttackTable: ...
def attack(
    model: Model,
    images: Given,
    labels: Given,
    *,
    norm: Norm = "linf",
    radius: Radius | Sequence[Radius] = 0.1,
    query_budget: int = 1000,
    attacker: str | Sequence[str] = "",
    target: int | None = None,
    num_images: int | None = None,
    tells: Tells = "",
    layout: ArrayLayout = "nchw",
    seed: int = 0,
    settings: Mapping[str, Scalar] | None = None,
    progress: Progress | None = None,
) -> Report | AttackTable:
    """Look for small changes of images after which a model answers otherwise, by queries alone.

    model: a torch module [n, c, h, w] -> scores, a function of a numpy array of as many axes, or a
    Victim. images [n, c, h, w] in [0, 1], labels [n] as the model should answer, both
    tensors or arrays. norm, radius: what a change may be, linf or l2, and a text such as "8/255"
    is a radius too; target: the class to be answered, None for any other. query_budget: most
    queries an image. attacker: of `fedzo list attackers`, "" is the best one for what the model
    tells. num_images: how many are drawn of those that the model answers right, None for as many as
    there are images. tells: what a function returns: logits where nothing is said, probabilities,
    or labels [n]. layout: nhwc, where images are [n, h, w, c] and the module or function takes
    them so; those of the report are [n, c, h, w]. settings: the attacker's, by name. A list of
    radii or of attackers makes a table of all of them, on the same images.

        report = fedzo.attack(model, images, labels, radius=0.2, query_budget=500)
        print(report.success_rate, report.adversarials.shape)
        table = fedzo.attack(model, images, labels, radius=["8/255", 0.1], attacker=["square"])
        print([report.robust_accuracy for report in table.of("square")])

    Raises ConfigError for bad values, images out of [0, 1], and where too few are answered right;
    ObjectiveError where the model fails or answers something else.
    """
    require(layout in get_args(ArrayLayout), "layout", layout, "nchw or nhwc")
    images = read_images(images, layout=layout)
    victim = _victim(model, tells, layout)
    attackers, radii = _listed(attacker, "attacker"), _listed(radius, "radius")
    radii = [read_radius(r, norm) for r in radii]
    plan = Plan(
        num_images=len(images) if num_images is None else num_images,
        attacker=attackers[0],
        attacker_settings={k.removeprefix("attacker."): v for k, v in (settings or {}).items()},
        target=target,
        settings=AttackSettings(norm=norm, radius=radii[0], query_budget=query_budget, seed=seed),
        all_right=num_images is None,
    )
    if np.ndim(attacker) == np.ndim(radius) == 0:
        return attack_victim(victim, images, labels, plan, progress=progress)
    plans = table_of(plan, attackers, radii, {})
    return AttackTable(attack_by_plans(victim, images, labels, plans, progress=progress))


def _listed(given: Any, name: str) -> list[Any]:
    """Return one thing, or several, as a list; raises ConfigError for none."""
    several = list(given) if np.ndim(given) else [given]
    require(bool(several), name, given, "one, or a list of one or more")
    return several


def _victim(model: Model, tells: str, layout: ArrayLayout) -> Victim:
    """Return the victim that a model is; raises ConfigError for what is none."""
    if isinstance(model, Victim) and not isinstance(model, nn.Module):
        if tells:
            raise ConfigError(f"tells={tells} has no effect on a Victim, which says it itself")
        return model
    if isinstance(model, nn.Module) and tells == "labels":
        raise ConfigError(
            "tells=labels: a module tells scores; give a function of images that returns labels"
        )
    kind: type[ModuleVictim | CallableVictim] = (
        ModuleVictim if isinstance(model, nn.Module) else CallableVictim
    )
    victim: Victim = kind(model, tells or "logits")  # type: ignore[arg-type]
    return ChannelsLast(victim) if layout == "nhwc" else victim

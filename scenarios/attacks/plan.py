"""What an attack on one victim is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fedzo.attacks.attack import AttackSettings
from fedzo.config import Scalar, check_types, require
from fedzo.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `fedzo attack` is asked for; "" is the default attacker for what the victim tells.

    target: the class to be answered as; None for any other. attacker_settings: without prefix.
    all_right: whether fewer images than num_images will do, where the victim gets others wrong.
    """

    num_images: int = 20
    attacker: str = ""
    attacker_settings: Mapping[str, Scalar] = field(default_factory=dict)
    target: int | None = None
    settings: AttackSettings = field(default_factory=AttackSettings)
    all_right: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_images >= 1, "images", self.num_images, "at least 1")
        if self.target is not None:
            require(self.target >= 0, "target", self.target, "a class: 0, 1, 2, ...")

    @property
    def most_queries(self) -> int:
        """What the attack may cost, without screening."""
        return self.settings.query_budget * (1 if self.settings.universal else self.num_images)


def table_of(
    plan: Plan,
    attackers: Sequence[str],
    radii: Sequence[float],
    settings: Mapping[str, Mapping[str, Scalar]],
) -> list[Plan]:
    """Return a plan for every attacker at every radius, smaller ones first.

    settings: those of single attackers, over the plan's. Raises ConfigError for what is given
    twice, and for a universal perturbation, which leaves no image out that withstands it.
    """
    for name, shown in (("attacker", attackers), ("radius", [f"{r:g}" for r in radii])):
        twice = [one for one in shown if list(shown).count(one) > 1]
        if twice:
            raise ConfigError(f"{name} {twice[0]} is given {len(twice)} times; give it once")
    if plan.settings.universal:
        raise ConfigError(
            "universal=True with several attackers or radii has no robust accuracy, which is of"
            " images attacked one by one; leave it out, or give one attacker and one radius"
        )
    return [
        replace(
            plan,
            attacker=attacker,
            attacker_settings={**plan.attacker_settings, **settings.get(attacker, {})},
            settings=replace(plan.settings, radius=radius),
        )
        for attacker in attackers
        for radius in sorted(radii)
    ]

"""What an attack on one victim is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedzo.attacks.attack import AttackSettings
from fedzo.config import Scalar, check_types, require


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

"""What an attack is allowed, and how it is counted."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.goal import LossName
from fedzo.attacks.names import Norm
from fedzo.config import check_types, require
from fedzo.used_with import UsedWith, above, any_of, one_of, require_used


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSettings:
    """What is allowed, and how it is counted.

    norm, radius: see fedzo.attacks.region. loss: of fedzo.attacks.goal; boundary looks at labels
    only, and the attacker is told distances. query_budget: most queries an image. universal: one
    perturbation for all images; a proposal then costs a query an image, and success is the share
    `universal_rate` of them. placements: with norm patch, one patch for so many places in the
    image, each a query of a proposal; universal_rate of them is a success (fedzo.attacks.placing);
    0 for a patch where it works best. levels: pixel values are whole steps of 1 / levels, 0 for any
    value. batch: most images in one request. confirm: answers that a success takes, 0 for one, and
    9 of a victim that is seen to be noisy (fedzo.attacks.confirm). expect: answers that are
    averaged for a proposal, blind: std of noise under which each is asked (fedzo.attacks.copies).
    confidence: by scores, a success ends the attack when its loss is so far below 0, as it must be
    to hold for other models; one that is not yet is kept, and counts.
    """

    norm: Norm = "linf"
    radius: float = 0.1
    query_budget: int = 1000
    seed: int = 0
    loss: LossName = "margin"
    universal: bool = False
    universal_rate: float = 0.5
    placements: int = 0
    levels: int = 0
    coordinates: Coordinates = field(default_factory=Coordinates)
    batch: int = 4096
    confirm: int = 0
    expect: int = 1
    blind: float = 0.0
    confidence: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "universal_rate": any_of(one_of("universal", True), above("placements", 0)),
        "placements": (one_of("norm", "patch"), one_of("universal", False)),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require_used(self)
        require(self.radius > 0, "radius", self.radius, "positive")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        for name in ("query_budget", "batch", "expect"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        rate = self.universal_rate
        require(0 < rate <= 1, "universal_rate", rate, "above 0, up to 1")
        require(self.placements >= 0, "placements", self.placements, "0 (one, the best) or more")
        require(self.levels >= 0, "levels", self.levels, "0 (any value) or more, such as 255")
        require(self.confirm >= 0, "confirm", self.confirm, "0 (as the victim needs) or more")
        require(0 <= self.blind <= 1, "blind", self.blind, "0 (as it is) to 1, in units of a pixel")
        sure = self.confidence
        require(0 <= sure < math.inf, "confidence", sure, "0 (any success ends it) or more, finite")

    def shown(self, images: int) -> int:
        """Return how many pictures a proposal is asked as, where there are so many images."""
        return images if self.universal else max(1, self.placements)

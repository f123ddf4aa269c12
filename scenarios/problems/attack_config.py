"""The settings of a federated attack."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from fedzo.config import check_types, require, require_nonnegative
from fedzo.used_with import UsedWith, one_of
from scenarios.data.folders import is_own_folder

_TRAINED = one_of("dataset", "mnist5k", "digits", "idx")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackConfig:
    """Settings of the attack.

    dataset, data_dir: see scenarios.data.images, or photos (scenarios.data.photos). radius: of the
    Linf box, in pixel units of [0, 1]. num_images: attacked one after the other.
    classes_per_client: the victims' heterogeneity. confidence: the averaged margin below 0 at which
    an attack stops; more of it costs queries and fools more victims that took no part (Carlini &
    Wagner 2017). clamp: whether a perturbed image is clamped to [0, 1]. waves, blocks: k, 0 for all
    pixels. victim_seed: of the victims' training, apart from the run's seed so that all seeds
    attack the same victims. architectures: strided, pooled, or mixed, one after the other.
    networks, crop: of photographs, the clients' networks in turns, and the share of the side that
    each of them sees. endpoints: addresses of live victims that tell logits
    (fedzo.attacks.victims.remote), commas between them: those of the last clients. held_out:
    victims that take no part, on which the perturbation is tried when it is reported. cache_dir:
    where trained victims are kept, "" for the user's cache.
    """

    dataset: Literal["mnist5k", "digits", "idx", "photos"] = "mnist5k"
    data_dir: str = ""
    radius: float = 0.2
    num_images: int = 5
    classes_per_client: int = 7
    clamp: bool = True
    confidence: float = 0.0
    waves: int = 0
    blocks: int = 0
    architectures: Literal["strided", "pooled", "mixed"] = "strided"
    networks: str = "efficientnet-lite0,efficientnet-lite1,efficientnet-lite2"
    crop: float = 0.9
    endpoints: str = ""
    held_out: int = 0
    epochs: int = 25
    victim_seed: int = 0
    noise_std: float = 0.0
    cache_dir: str = ""
    USED_WITH: ClassVar[UsedWith] = {
        "data_dir": one_of("dataset", "idx"),
        **dict.fromkeys(("classes_per_client", "architectures", "epochs", "cache_dir"), _TRAINED),
        **dict.fromkeys(("networks", "crop"), one_of("dataset", "photos")),
    }

    @property
    def own_data(self) -> bool:
        """Whether the images lie in a folder of the user's own, or a victim is live."""
        return is_own_folder(self.dataset, self.data_dir) or bool(self.endpoints)

    def __post_init__(self) -> None:
        check_types(self)
        require(0.1 <= self.crop <= 1, "crop", self.crop, "from 0.1 to 1")
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

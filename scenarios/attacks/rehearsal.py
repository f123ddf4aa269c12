"""An attack is begun once without asking: what cannot be is said before anything is spent."""

from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attack import AttackSettings, check_budget, check_levels
from fedzo.attacks.attacker import Attacker, Task, start
from fedzo.attacks.attackers.boundary import Boundary
from fedzo.attacks.attackers.estimated import RankSGD
from fedzo.attacks.budget import shortfall
from fedzo.attacks.placing import region_of
from fedzo.errors import ConfigError
from fedzo.randomness import stream


def rehearse(
    attacker: Attacker,
    images: Float[Tensor, "n c h w"],
    num_images: int,
    settings: AttackSettings,
) -> None:
    """Raise ConfigError where an attack on so many of these images cannot begin, or never move.

    Every candidate of an attacker by order is an attempt: there it is a warning.
    """
    check_budget(num_images, settings)
    check_levels(images, settings)
    shared = settings.expect * settings.shown(num_images)
    region = region_of(images[:1], settings)
    task = Task(
        region,
        settings.coordinates,
        settings.query_budget // shared,
        stream(settings.seed, "attack", "rehearsal"),
    )
    told = Boundary(attacker) if settings.loss == "boundary" else attacker
    sentence = shortfall(told, task)
    if sentence and not isinstance(told, RankSGD):
        raise ConfigError(sentence)
    asked = start(told, task).asked
    rounded = region.on_steps(asked, settings.levels) if settings.levels else asked
    if settings.levels and len(asked) > 1 and bool((rounded == rounded[0]).all()):
        raise ConfigError(
            f"levels={settings.levels} makes all {len(asked)} perturbations of the first step the"
            " same; raise the radius, or what the attacker changes (mu)"
        )

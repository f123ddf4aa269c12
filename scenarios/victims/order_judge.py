"""Who says whether an attack by order has succeeded: the model inside, unseen by the attacker.

Its answers are not counted. One that answers differently when asked twice is asked as often as a
success of any other noisy victim takes (fedzo.attacks.confirm).
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.confirm import Confirmation, agreed, differ
from fedzo.attacks.goal import Goal
from fedzo.attacks.subject import Found, perturbed
from fedzo.attacks.victims.victim import Answers, Victim, ask_checked
from fedzo.attacks.victims.wrappers import OrderOnly
from fedzo.errors import FedzoWarning


def judge_orders(
    victim: Victim,
    images: Float[Tensor, "n c h w"],
    goals: Sequence[Goal],
    found: Sequence[Found],
    settings: AttackSettings,
    confirmation: Confirmation,
) -> list[Found]:
    """Say what has succeeded where the attacker cannot; a universal one is judged on all images."""
    judge = _judge_inside(victim)
    if judge is None:
        warnings.warn(
            "the victim tells an order alone, and nobody can say whether an attack has succeeded;"
            " no success is reported",
            FedzoWarning,
            stacklevel=2,
        )
        return list(found)
    if not settings.confirm:
        confirmation.noisy = differ(ask_checked(judge, images), ask_checked(judge, images))
    judged = []
    for one in found:
        own = list(range(len(images))) if settings.universal else [one.index]
        pictures = perturbed(images[own], one.delta.unsqueeze(0))
        mine = [goals[i] for i in own]
        told = ask_checked(judge, pictures)
        rest = range(confirmation.needed - 1)
        hits = [_hit(told, mine, settings.universal_rate)]
        hits += [_hit(ask_checked(judge, pictures), mine, settings.universal_rate) for _ in rest]
        success = agreed(hits, confirmation.needed)
        judged.append(replace(one, success=success, label=int(told.labels[0])))
    return judged


def _hit(told: Answers, goals: Sequence[Goal], rate: float) -> bool:
    reached = [bool(g.reached(told.take(slice(i, i + 1)))[0]) for i, g in enumerate(goals)]
    return mean(reached) >= rate


def _judge_inside(victim: Victim) -> Victim | None:
    """Return the victim around which orders are made, whatever stands around them."""
    inside: Victim | None = victim
    while inside is not None and not isinstance(inside, OrderOnly):
        inside = getattr(inside, "victim", None)
    return None if inside is None else inside.victim


def goals_of(labels: Int[Tensor, " n"], target: int | None) -> list[Goal]:
    """Return what is wanted of each image."""
    return [Goal(int(label), target) for label in labels]

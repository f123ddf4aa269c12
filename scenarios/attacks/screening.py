"""Which images are attacked: drawn by seed, and asked until enough are answered right.

Images that the victim gets wrong anyway are no subject of an attack; they are told apart.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.victims.victim import Victim
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.attacks.plan import Plan

_SCREENED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Screened:
    """The places in the data of what is attacked, and of what the victim gets wrong.

    answers: what it says of the latter. queries: what asking has cost.
    """

    chosen: Int[Tensor, " k"]
    misclassified: Int[Tensor, " m"]
    answers: Int[Tensor, " m"]
    queries: int = 0

    @property
    def accuracy(self) -> float:
        """The share of the images asked that is answered right."""
        return len(self.chosen) / (len(self.chosen) + len(self.misclassified))


def screen(
    victim: Victim, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], plan: Plan
) -> Screened:
    """Return the first images in random order that are answered right, at a query each.

    A victim that tells no labels is not screened: nobody could say which answers are right. Raises
    ConfigError when too few are.
    """
    order = torch.from_numpy(stream(plan.settings.seed, "attack", "order").permutation(len(images)))
    if plan.target is not None:
        order = order[labels[order] != plan.target]
    if victim.tells == "order":
        return Screened(order[: plan.num_images], order[:0], order[:0])
    told = torch.full_like(labels, -1)
    queries = first = 0
    most = len(order) if plan.all_right else min(len(order), most_screened(plan))
    while first < most:
        right = int((told == labels).sum())
        wanted = min(_SCREENED_AT_ONCE, plan.num_images - right)
        part = order[first : min(first + wanted, most)]
        first += len(part)
        answers = victim.ask(images[part])
        queries += answers.queries
        told[part[answers.answered]] = answers.labels[answers.answered]
        if int((told == labels).sum()) >= plan.num_images:
            break
    asked = order[:first]
    hits = told[asked] == labels[asked]
    right = int(hits.sum())
    if right < plan.num_images and not (right and plan.all_right):
        raise _too_few(plan, right, first, int((told[asked] < 0).sum()), len(order))
    wrong = asked[~hits & (told[asked] >= 0)]
    return Screened(asked[hits], wrong, told[wrong], queries)


def _too_few(plan: Plan, right: int, asked: int, refused: int, there: int) -> ConfigError:
    return ConfigError(
        f"images={plan.num_images} asks for more than the {right} of {asked} that the victim"
        f" answers as labelled{f' (it refused {refused})' if refused else ''}; lower it, or check"
        " that victim and data belong together"
        f"{'' if asked == there else f' ({there - asked} others were not asked)'}"
    )


def most_screened(plan: Plan) -> int:
    """Return how many images are screened at most before too few are said to be answered right.

    A victim that is right once in twenty times is as good as none; nor may screening cost much more
    than the attack itself.
    """
    each = 1 if plan.settings.universal else plan.num_images
    worth = min(20 * plan.num_images, plan.settings.query_budget * each)
    return max(_SCREENED_AT_ONCE, 4 * plan.num_images, worth)

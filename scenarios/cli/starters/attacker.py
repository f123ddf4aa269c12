"""Starter: random search that paints squares of the image brighter or darker.

s' = s with one random sign all over a random square;   kept where loss(toward(-s')) falls
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from fedzo.attacks.attacker import Search, Task
from fedzo.attacks.victims.victim import AnswerKind
from fedzo.config import check_types, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """share: of the image's side that a square has, as in --set attacker.share=0.1."""

    needs: ClassVar[tuple[AnswerKind, ...]] = ("logits", "probabilities")
    share: float = 0.25

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.share <= 1, "share", self.share, "above 0, at most 1")

    def search(self, task: Task) -> Search:
        """Yield perturbations [q, d] to ask, and receive their losses; the loop ends it."""
        region, best = task.region, math.inf
        _, height, width = region.shape
        side = max(1, round(self.share * min(height, width)))
        signs = torch.ones(region.shape)
        while True:
            top, left = task.generator.integers([height - side + 1, width - side + 1])
            tried = signs.clone()
            tried[:, top : top + side, left : left + side] = task.generator.choice([-1.0, 1.0])
            reply = yield region.toward(-tried.flatten().to(region.lower)).unsqueeze(0)
            loss = float(reply.losses[0].nan_to_num(torch.inf))
            if loss <= best:
                signs, best = tried, loss

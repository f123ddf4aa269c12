"""Victims that live elsewhere: behind an HTTP endpoint, or behind a command.

    question  {"images": [[[[...]]]]}          [b, c, h, w], pixels in [0, 1]
    answer    {"logits": [[...]]}  or  {"probabilities": [[...]]}  or  {"labels": [...]}

one row or number an image, in order; an image that is refused is `null`, and so is a score that is
not told. `tells` says which of the three is expected. Requests hold at most `batch` images;
timeouts, retries and the rate limit are those of fedzo.transport. Queries are counted by answers
that have arrived.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.victim import Answers, join_answers, read_answers
from fedzo.attacks.wrappers import spread_answers
from fedzo.config import require
from fedzo.errors import ObjectiveError
from fedzo.transport import Transport

Tells = Literal["logits", "probabilities", "labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteVictim:
    """A victim at the other end of a transport: Http(url=...) or Command(command=[...])."""

    transport: Transport
    tells: Tells = "logits"
    batch: int = 256

    def __post_init__(self) -> None:
        require(self.batch >= 1, "batch", self.batch, "at least 1")

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        """Ask part by part; raises ObjectiveError when the last try has failed."""
        return join_answers([self._ask(part) for part in images.split(self.batch)])

    def _ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        question = {"images": images.tolist()}
        return self.transport.ask(question, lambda told: read_json(told, len(images), self.tells))


def read_json(answer: bytes, count: int, tells: Tells) -> Answers:
    """Return the answers in JSON; raises ObjectiveError unless it is what was expected."""
    try:
        raw: Any = json.loads(answer)
        rows = raw[tells]
        if not isinstance(rows, list):
            raise TypeError
    except (ValueError, TypeError, KeyError) as error:
        shown = answer[:80].decode(errors="replace")
        raise ObjectiveError(f'the answer {shown!r} is not {{"{tells}": [...]}}') from error
    if len(rows) != count:
        raise ObjectiveError(f"{count} images were asked and {len(rows)} answers came back")
    told = [row for row in rows if row is not None]
    answered = torch.tensor([row is not None for row in rows], dtype=torch.bool)
    return spread_answers(read_answers(told, len(told), tells) if told else None, answered, tells)

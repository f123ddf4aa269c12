"""Victims that live elsewhere: behind an HTTP endpoint, or behind a command.

    question  {"images": [[[[...]]]]}          [b, c, h, w], pixels in [0, 1]
    answer    {"logits": [[...]]}  or  {"probabilities": [[...]]}  or  {"labels": [...]}

one row or number an image, in order; an image that is refused is `null`, and so is a score that is
not told. A label may be a name among `classes`. `tells` says which of the three is expected.
Requests hold at most `batch` images; timeouts, retries and the rate limit are those of
fedzo.objectives.transport. Queries are counted by answers that have arrived.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.victims.victim import Answers, join_answers, read_answers
from fedzo.attacks.victims.wrappers import spread_answers
from fedzo.config import check_types, require
from fedzo.errors import ObjectiveError
from fedzo.objectives.json_answers import named_list
from fedzo.objectives.transport import Transport
from fedzo.objectives.tries import Final

Tells = Literal["logits", "probabilities", "labels"]
_ROOM: dict[Tells, int] = {"logits": 1 << 20, "probabilities": 1 << 20, "labels": 256}
"""Bytes that the answer to an image may take: a score takes 30, so there may be 30,000 classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteVictim:
    """A victim at the other end of a transport: Http(url=...) or Command(command=[...]).

    classes: names of classes 0, 1, ..., for labels that are names.
    """

    transport: Transport
    tells: Tells = "logits"
    batch: int = 256
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_types(self)
        require(self.batch >= 1, "batch", self.batch, "at least 1")
        names = [] if isinstance(self.classes, str) else list(self.classes)
        texts = all(isinstance(name, str) and name for name in names)
        sound = texts and len({*names}) == len(names) == len(self.classes)
        require(sound, "classes", f"{self.classes!r:.60}", "a list of names, each once")

    def ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        """Ask part by part; raises ObjectiveError when the last try has failed."""
        parts: list[Answers] = []
        for part in images.split(self.batch):
            try:
                parts.append(self._ask(part))
            except ObjectiveError as error:  # what comes after this part was not asked
                sent = getattr(error, "points_asked", len(part))
                error.points_asked = sum(map(len, parts)) + sent  # type: ignore[attr-defined]
                raise
        return join_answers(parts)

    def _ask(self, images: Float[Tensor, "b c h w"]) -> Answers:
        count = len(images)
        return self.transport.ask(
            {"images": images.tolist()},
            lambda told: read_json(told, count, self.tells, self.classes),
            room=_ROOM[self.tells] * count,
        )


def read_json(answer: bytes, count: int, tells: Tells, classes: Sequence[str] = ()) -> Answers:
    """Return the answers in JSON; raises ObjectiveError unless it is what was expected."""
    rows = named_list(answer, tells, "...")
    if len(rows) != count:
        raise ObjectiveError(f"{count} images were asked and {len(rows)} answers came back")
    told = [row for row in rows if row is not None]
    if tells == "labels":
        told = [_numbered(label, classes) for label in told]
    answered = torch.tensor([row is not None for row in rows], dtype=torch.bool)
    try:
        known = read_answers(told, len(told), tells) if told else None
    except OverflowError as error:
        raise ObjectiveError("a number in the answer is an integer beyond any float") from error
    return spread_answers(known, answered, tells)


def _numbered(label: Any, classes: Sequence[str]) -> Any:
    """Return the number of a class that is named; raises Final for a name that is none."""
    if not isinstance(label, str):
        return label
    if label not in classes:
        listed = f"none of the {len(classes)} classes listed" if classes else "a name"
        raise Final(
            f"answers the label {label!r}, {listed}; list all names in a file, one a line, that of"
            " class 0 first: victim.classes=FILE (in Python RemoteVictim(classes=[...]))"
        )
    return classes.index(label)

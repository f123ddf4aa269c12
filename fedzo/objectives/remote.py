"""Black boxes that live elsewhere: behind an HTTP endpoint, or behind a command.

Both get all points of a question at once as JSON, {"points": [[...], ...]}, and answer
{"values": [...]}, one number a point. Nothing but the standard library is needed at the other end.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require_nonnegative
from fedzo.errors import ObjectiveError
from fedzo.objectives.json_answers import named_list, no_answer
from fedzo.objectives.objective import Bound, check_box
from fedzo.objectives.transport import Command, Http, Transport

_WAITS = ("timeout_s", "retries", "pause_s", "rate_limit", "trip_after", "rest_s")
_NUMBER_BYTES = 256
"""Room for a number in an answer; 17 digits and what stands around them take 30."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remote(ABC):
    """What both kinds share; see fedzo.objectives.transport for timeouts, retries and rates,
    and fedzo.objectives.circuit for trip_after and rest_s.

    batch: most points in one question, 0 is no limit. Tries that fail are not counted as queries:
    what was computed in vain is unknown. Where a part of a question fails for good, it and those
    before it are counted, those after it were not asked.
    """

    dim: int
    lower: Bound = -math.inf
    upper: Bound = math.inf
    timeout_s: float = 60.0
    retries: int = 3
    pause_s: float = 0.5
    rate_limit: float = 0.0
    trip_after: int = 3
    rest_s: float = 10.0
    batch: int = 0
    transport: Transport = field(init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = check_box(self.dim, self.lower, self.upper)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)
        require_nonnegative("batch", self.batch)
        object.__setattr__(self, "transport", self._transport(self._waits()))

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Ask for all points; raises ObjectiveError when the last try has failed."""
        points = x.detach().cpu().double().reshape(-1, self.dim)
        values: list[float] = []
        for part in points.split(self.batch or len(points)) if len(points) else ():
            try:
                values += self._ask(part.tolist())
            except ObjectiveError as error:  # what comes after this part was not asked
                sent = getattr(error, "points_asked", len(part))
                error.points_asked = len(values) + sent  # type: ignore[attr-defined]
                error.answered = values  # type: ignore[attr-defined]
                raise
        return torch.tensor(values, dtype=torch.float64).to(x).reshape(x.shape[:-1])

    def _ask(self, points: list[list[float]]) -> list[float]:
        count = len(points)
        return self.transport.ask(
            {"points": points}, lambda told: _values(told, count), room=_NUMBER_BYTES * count
        )

    def _waits(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _WAITS}

    @abstractmethod
    def _transport(self, waits: dict[str, Any]) -> Transport:
        """Return the way to the other end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpObjective(_Remote):
    """An objective behind an HTTP endpoint that is asked by POST."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def _transport(self, waits: dict[str, Any]) -> Transport:
        return Http(url=self.url, headers=self.headers, **waits)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandObjective(_Remote):
    """An objective behind a command that reads the question on stdin and answers on stdout."""

    command: Sequence[str]

    def _transport(self, waits: dict[str, Any]) -> Transport:
        return Command(command=self.command, **waits)


def _values(answer: bytes, count: int) -> list[float]:
    """Return the values in an answer; raises ObjectiveError for anything but one number a point."""
    rows = named_list(answer, "values", "numbers")
    if any(isinstance(row, bool) or not isinstance(row, int | float) for row in rows):
        raise no_answer(answer, "values", "numbers")
    if len(rows) != count:
        raise ObjectiveError(f"{count} points were asked and {len(rows)} values came back")
    try:
        return [float(row) for row in rows]
    except OverflowError as error:
        raise ObjectiveError("a value in the answer is an integer beyond any float") from error

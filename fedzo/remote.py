"""Black boxes that live elsewhere: behind an HTTP endpoint, or behind a command.

Both get all points of a question at once as JSON, {"points": [[...], ...]}, and answer
{"values": [...]}, one number a point. Nothing but the standard library is needed at the other end.
"""

import json
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
from fedzo.objective import Bound, check_box
from fedzo.transport import Command, Http, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remote(ABC):
    """What both kinds share; for timeout_s, retries, pause_s, rate_limit see fedzo.transport.

    batch: most points in one question, 0 is no limit. Tries that fail are not counted as queries:
    what was computed in vain is unknown.
    """

    dim: int
    lower: Bound = -math.inf
    upper: Bound = math.inf
    timeout_s: float = 60.0
    retries: int = 3
    pause_s: float = 0.5
    rate_limit: float = 0.0
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
        parts = points.split(self.batch or max(1, len(points)))
        values = [value for part in parts for value in self._ask(part.tolist())]
        return torch.tensor(values, dtype=torch.float64).to(x).reshape(x.shape[:-1])

    def _ask(self, points: list[list[float]]) -> list[float]:
        return self.transport.ask({"points": points}, lambda told: _values(told, len(points)))

    def _waits(self) -> dict[str, Any]:
        return {n: getattr(self, n) for n in ("timeout_s", "retries", "pause_s", "rate_limit")}

    @abstractmethod
    def _transport(self, waits: dict[str, Any]) -> Transport:
        """Return the way to the other end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpObjective(_Remote):
    """An objective behind an HTTP endpoint that is asked by POST."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)

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
    try:
        raw: Any = json.loads(answer)["values"]
        if not isinstance(raw, list):
            raise TypeError
        values = [float(value) for value in raw]
    except (ValueError, TypeError, KeyError) as error:
        shown = answer[:80].decode(errors="replace")
        raise ObjectiveError(f'the answer {shown!r} is not {{"values": [numbers]}}') from error
    if len(values) != count:
        raise ObjectiveError(f"{count} points were asked and {len(values)} values came back")
    return values

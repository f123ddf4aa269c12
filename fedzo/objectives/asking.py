"""How clients are asked whose code may fail: what happens with a point at which it raises.

    fail     the client fails for the exchange; its points count as far as they were asked
    retry    the point is asked again, up to three times; each time counts; then as fail
    skip     the point has no value (NaN): whoever estimates leaves it out, as a value that is NaN
             with client.non_finite=skip

Where the objective says how many points it had answered (CallableObjective does), those are kept
and the next one is asked again, or left out; otherwise that concerns the whole request.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.failure import failure_of

OnFailure = Literal["fail", "retry", "skip"]
RETRIES = 3


@dataclass(slots=True)
class Asking:
    """How the clients of one exchange are asked, and what came of it, by their positions.

    may_ask: whether the budget of the client at a position covers so many more queries. pool: who
    asks several clients at a time; None for one after the other. again: queries that were asked
    again, less those that were left out without being asked. left_out: the points of the last
    request that have no value. heard: who has answered a point of the exchange; silent: why others
    have not.
    """

    on_failure: OnFailure = "fail"
    may_ask: Callable[[int, int], bool] = lambda _position, _queries: True
    pool: Executor | None = None
    again: dict[int, int] = field(default_factory=dict)
    left_out: dict[int, list[int]] = field(default_factory=dict)
    heard: set[int] = field(default_factory=set)
    silent: dict[int, str] = field(default_factory=dict)

    @property
    def unheard(self) -> dict[int, str]:
        """Why those have failed of whom every point was left out."""
        silent = self.silent.items()
        return {p: f"{why}, at every point" for p, why in silent if p not in self.heard}

    def lost(self, values: Float[Tensor, "n q"]) -> Bool[Tensor, "n q"] | None:
        """Return which points of the last request were left out, and forget it; None for none."""
        if not self.left_out:
            return None
        found = torch.zeros_like(values, dtype=torch.bool)
        for position, points in self.left_out.items():
            found[position, points] = True
        self.left_out.clear()
        return found


class GivenUp(Exception):
    """A client has failed: why, and how many points of the request it was not asked."""

    def __init__(self, reason: str, unasked: int) -> None:
        super().__init__(reason)
        self.reason, self.unasked = reason, unasked


def ask_points(
    ask: Callable[[Float[Tensor, "p d"]], Float[Tensor, " p"]],
    points: Float[Tensor, "q d"],
    position: int,
    asking: Asking,
) -> Float[Tensor, " q"]:
    """Return the values at points, NaN for those that are left out; raises GivenUp."""
    values = points.new_full((len(points),), torch.nan, dtype=torch.float64)
    place, tries, unasked = 0, 0, 0
    while place < len(points):
        try:
            values[place:] = ask(points[place:])
            asking.heard.add(position)
            break
        except ConfigError:  # the experiment is wrong, not the client
            raise
        except BaseException as error:  # a client's code may raise anything; it fails alone
            reason, left = failure_of(error), len(points) - place
            asked: int = getattr(error, "points_asked", left)
            answered: list[float] = getattr(error, "answered", [])
            wasted = asked - len(answered)
            failed = wasted if wasted and hasattr(error, "answered") else left - len(answered)
        if answered:
            values[place : place + len(answered)] = torch.tensor(answered, dtype=torch.float64)
            place, tries = place + len(answered), 0
            asking.heard.add(position)
        if asking.on_failure == "retry" and wasted:  # else nothing was sent: it is left alone
            told = _again(asking, position, wasted, tries)
            if told is None:
                tries += 1
                continue
            reason += told
        if asking.on_failure != "skip":
            raise GivenUp(reason, left - asked)
        asking.left_out.setdefault(position, []).extend(range(place, place + failed))
        asking.silent[position] = reason
        place, tries, unasked = place + failed, 0, unasked + failed - wasted
    if unasked:
        asking.again[position] = asking.again.get(position, 0) - unasked
    return values


def _again(asking: Asking, position: int, queries: int, tries: int) -> str | None:
    """Count queries that are asked again; return why they are not, None where they are."""
    if tries == RETRIES:
        return f", and so it did {RETRIES} times more"
    if not asking.may_ask(position, queries):
        return ", and the query budget does not cover asking again"
    asking.again[position] = asking.again.get(position, 0) + queries
    return None

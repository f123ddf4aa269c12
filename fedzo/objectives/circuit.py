"""A circuit breaker: who has failed several questions in a row is left alone for a while.

    closed   questions are asked; each answer begins the count of failures anew
    open     `trip_after` questions in a row have failed: nothing is asked for `rest_s`
    trial    after the rest one question is tried once; an answer closes the circuit, a failure
             opens it for twice as long, up to five minutes

So an endpoint that has died costs its client's place in a round, and not `retries` times a timeout
in every round. Nygard, "Release It!", 2nd ed. 2018, section 5.2; differs: a refusal (status 4xx) is
an answer, for whoever refuses is alive.
"""

import re
import time
import warnings
from dataclasses import dataclass

from fedzo.errors import FedzoWarning, ObjectiveError

LONGEST_REST_S = 300.0
_RESTS = re.compile(r"is not asked for another (\S+) s")


class NotAsked(ObjectiveError):
    """Nothing was sent: the other end is left alone."""

    points_asked = 0


def rest_of(reason: str) -> float:
    """Return for how many seconds who has failed for a reason is left alone; 0 for others.

    Reasons come from clients too, who may write what they like: no rest is longer than any is.
    """
    found = _RESTS.search(reason)
    try:
        rest = float(found[1]) if found else 0.0
    except ValueError:
        return 0.0
    return rest if 0 <= rest <= LONGEST_REST_S else 0.0


@dataclass(slots=True)
class Circuit:
    """What a process knows of one other end."""

    failed: int = 0
    opened: int = 0
    until_s: float = 0.0

    @property
    def on_trial(self) -> bool:
        """Whether the next question is the one after a rest."""
        return self.opened > 0

    def require_closed(self, name: str) -> None:
        """Raise NotAsked while the other end is left alone."""
        left = self.until_s - time.monotonic()
        if self.opened and left > 0:
            raise NotAsked(
                f"{name} has failed {self.failed} questions in a row and is not asked for another"
                f" {left:.3g} s"
            )

    def note_answer(self) -> None:
        """Close the circuit."""
        self.failed = self.opened = 0

    def note_failure(self, name: str, trip_after: int, rest_s: float) -> None:
        """Count a failure; from `trip_after` of them on, unless that is 0, begin to rest."""
        self.failed += 1
        if not trip_after or self.failed < trip_after:
            return
        rest = min(rest_s * 2.0**self.opened, LONGEST_REST_S)
        self.until_s = time.monotonic() + rest
        self.opened = min(self.opened + 1, 60)
        if self.opened == 1:
            text = (
                f"{name} has failed {self.failed} questions in a row; it is left alone for"
                f" {rest:g} s, longer each time that it fails again (trip_after={trip_after})"
            )
            warnings.warn(text, FedzoWarning, stacklevel=2)

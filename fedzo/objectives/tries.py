"""Tries that are made again: which failures pass, how long to wait, and what the user is told.

A try ends in an answer, or in one of these

    Final     asking again will not help: a status 4xx, a redirect, a body that has no end
    Later     the other end says how long it wants to be left alone (Retry-After)
    others    made again, each after twice the wait of the one before

Whoever waits a second or more says so. A wait above five minutes is not waited but said.
"""

import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import TypeVar

from fedzo.errors import FedzoWarning, ObjectiveError

AnswerT = TypeVar("AnswerT")
LONGEST_WAIT_S = 300.0
_WORTH_TELLING_S = 1.0


class Final(ObjectiveError):
    """A failure that another try would only repeat; the text goes on after the name."""


class Later(ObjectiveError):
    """The other end says how long to wait."""

    def __init__(self, text: str, wait_s: float) -> None:
        super().__init__(text)
        self.wait_s = wait_s


def too_long(limit: int) -> Final:
    """Return the error for an answer beyond a limit in bytes."""
    return Final(
        f"sends more than {limit / 2**20:.3g} MiB for an answer, far more than what was asked for"
        " takes"
    )


@dataclass(frozen=True, slots=True)
class Tries:
    """So many tries of something by its name; `hide` takes out of a text what nobody may read."""

    name: str
    retries: int
    pause_s: float
    hide: Callable[[str], str]

    def of(self, once: Callable[[], AnswerT]) -> AnswerT:
        """Return what one of the tries returns; raises ObjectiveError when the last has failed."""
        for number in range(self.retries + 1):
            try:
                return once()
            except Final as error:
                raise ObjectiveError(self.hide(f"{self.name} {error}")) from error
            except (OSError, HTTPException, subprocess.SubprocessError, ObjectiveError) as error:
                last = error
            if number < self.retries:
                self._wait(number, last)
        raise ObjectiveError(
            self.hide(f"{self.name} failed {self.retries + 1} times, at last: {_told(last)}")
        ) from last

    def _wait(self, number: int, error: Exception) -> None:
        """Sleep before the next try; raises ObjectiveError where that would take too long."""
        asked = error.wait_s if isinstance(error, Later) else 0.0
        if asked > LONGEST_WAIT_S:
            raise ObjectiveError(
                self.hide(
                    f"{self.name} asks to be left alone for {asked:g} s, and at most"
                    f" {LONGEST_WAIT_S:g} s are waited; go on later ({error})"
                )
            ) from error
        own = min(self.pause_s * 2.0 ** min(number, 60), LONGEST_WAIT_S)
        wait = asked if isinstance(error, Later) else own
        if wait >= _WORTH_TELLING_S:
            text = self.hide(
                f"{self.name} failed ({_told(error)}) and is asked again in {wait:.3g} s, try"
                f" {number + 2} of {self.retries + 1}"
            )
            warnings.warn(text, FedzoWarning, stacklevel=2)
        time.sleep(wait)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removeprefix("Later: ")

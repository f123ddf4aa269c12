"""How something that lives elsewhere is asked: over HTTP, or through a command.

A question is JSON; so is the answer. Tries that fail are made again, each after twice the wait of
the one before, or after as long as the other end asks for (Retry-After of HTTP 429 and 503). What
was computed in vain at the other end is unknown: only an answer that arrives is one.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TypeVar

from fedzo.config import require, require_nonnegative
from fedzo.errors import ConfigError, ObjectiveError

AnswerT = TypeVar("AnswerT")
_LONGEST_WAIT_S = 300.0


class _Later(ObjectiveError):
    """The other end says how long to wait."""

    def __init__(self, text: str, wait_s: float) -> None:
        super().__init__(text)
        self.wait_s = wait_s


@dataclass(slots=True)
class _Pace:
    """When the next request may be made; never sent to another process."""

    next_s: float = 0.0

    def wait(self, interval_s: float) -> None:
        """Sleep until a request may be made, and book the one after it."""
        now = time.monotonic()
        if now < self.next_s:
            time.sleep(self.next_s - now)
        self.next_s = max(now, self.next_s) + interval_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport(ABC):
    """What both kinds share.

    timeout_s: longest wait for an answer, over HTTP for each part of it; retries: further tries
    after an error or a timeout, the first after `pause_s`. rate_limit: most requests a second, 0
    for no limit.
    """

    timeout_s: float = 60.0
    retries: int = 3
    pause_s: float = 0.5
    rate_limit: float = 0.0
    _pace: _Pace = field(default_factory=_Pace, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(0 < self.timeout_s < math.inf, "timeout_s", self.timeout_s, "positive and finite")
        for name in ("retries", "pause_s", "rate_limit"):
            require_nonnegative(name, getattr(self, name))

    def ask(self, question: Mapping[str, object], read: Callable[[bytes], AnswerT]) -> AnswerT:
        """Return what `read` makes of the answer; raises ObjectiveError after the last try.

        `read` raises ObjectiveError for an answer that is none, which is then asked for again.
        """
        body = json.dumps(question).encode()
        pause = self.pause_s
        for tries_left in range(self.retries, -1, -1):
            if self.rate_limit:
                self._pace.wait(1 / self.rate_limit)
            try:
                return read(self.answer(body))
            except FileNotFoundError as error:
                raise ObjectiveError(f"{self.name()} does not exist: {error}") from error
            except (OSError, HTTPException, subprocess.SubprocessError, ObjectiveError) as error:
                if tries_left == 0:
                    raise ObjectiveError(
                        f"{self.name()} failed {self.retries + 1} times, at last:"
                        f" {type(error).__name__.lstrip('_')}: {error}"
                    ) from error
                wait = error.wait_s if isinstance(error, _Later) else pause
            time.sleep(min(wait, _LONGEST_WAIT_S))
            pause *= 2
        raise AssertionError("unreachable")

    @abstractmethod
    def answer(self, question: bytes) -> bytes:
        """Ask once, and return what came back as it is."""

    @abstractmethod
    def name(self) -> str:
        """Say who is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Http(Transport):
    """An HTTP endpoint that is asked by POST."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Transport.__post_init__(self)
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url={self.url!r} must begin with http:// or https://")

    def answer(self, question: bytes) -> bytes:
        headers = {"Content-Type": "application/json", **self.headers}
        request = urllib.request.Request(self.url, data=question, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            text = f"status {error.code} {error.reason}: "
            text += error.read(200).decode(errors="replace")
            wait = error.headers.get("Retry-After", "") if error.code in (429, 503) else ""
            if wait.replace(".", "", 1).isdigit():
                raise _Later(text, float(wait)) from error
            raise ObjectiveError(text) from error

    def name(self) -> str:
        return f"the endpoint {self.url}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Transport):
    """A command that reads the question on stdin and answers on stdout."""

    command: Sequence[str]

    def __post_init__(self) -> None:
        Transport.__post_init__(self)
        if isinstance(self.command, str) or not self.command:
            raise ConfigError(f"command={self.command!r} must be a list: the program, arguments")

    def answer(self, question: bytes) -> bytes:
        pipe = subprocess.PIPE
        with subprocess.Popen(
            list(self.command), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        ) as process:
            try:
                answer, said = process.communicate(question, timeout=self.timeout_s)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode:
            last = said.decode(errors="replace").strip()[-200:]
            raise ObjectiveError(f"exit status {process.returncode}: {last}")
        return answer

    def name(self) -> str:
        return f"the command {self.command[0]}"

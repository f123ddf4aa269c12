"""How something that lives elsewhere is asked: over HTTP, or through a command.

A question is JSON; so is the answer. `timeout_s` is the time for all of a try, from the look-up of
the host to the last byte of the answer. Tries that fail in a way that passes (no connection, a
connection that breaks, too late, status 408, 425, 429 or 5xx, an exit status, an answer that is
none) are made again, each after twice the wait of the one before, or after as long as the other end
asks for (Retry-After, up to 300 s; waits of a second or more are told). So a question takes at most
`retries` + 1 times `timeout_s`, and the waits. What was computed in vain at the other end is
unknown: only an answer that arrives is one.
"""

import json
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from fedzo.config import check_types, require, require_nonnegative
from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.addresses import shown_url, split_login
from fedzo.objectives.circuit import Circuit
from fedzo.objectives.http_post import post
from fedzo.objectives.pipes import converse
from fedzo.objectives.tries import Final, Tries

AnswerT = TypeVar("AnswerT")
_LEAST_ROOM = 4 << 20
_LONGEST_S = 1e6
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SET_BY_US = ("content-length", "transfer-encoding", "connection")
_SHORT = 6
"""Words of a header that are shorter hide nothing, and may stand anywhere in a text."""


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

    timeout_s: longest wait for the whole of an answer; retries: further tries after a failure that
    passes, the first after `pause_s`. rate_limit: most requests a second, 0 for no limit.
    trip_after: questions in a row that fail before nothing is asked for `rest_s`, 0 for always
    asking (fedzo.objectives.circuit).
    """

    timeout_s: float = 60.0
    retries: int = 3
    pause_s: float = 0.5
    rate_limit: float = 0.0
    trip_after: int = 3
    rest_s: float = 10.0
    _pace: _Pace = field(default_factory=_Pace, repr=False, compare=False)
    _circuit: Circuit = field(default_factory=Circuit, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.timeout_s < math.inf, "timeout_s", self.timeout_s, "positive and finite")
        require(self.timeout_s <= _LONGEST_S, "timeout_s", self.timeout_s, f"up to {_LONGEST_S:g}")
        for name in ("retries", "pause_s", "rate_limit", "trip_after", "rest_s"):
            require_nonnegative(name, getattr(self, name))
        slow = 0 < self.rate_limit < 1 / _LONGEST_S
        require(not slow, "rate_limit", self.rate_limit, f"0 (none), or {1 / _LONGEST_S:g} or more")
        for name in ("retries", "trip_after"):
            count = getattr(self, name)
            require(count == int(count), name, count, "a whole number")

    def ask(
        self,
        question: Mapping[str, object],
        read: Callable[[bytes], AnswerT],
        *,
        room: int = 0,
    ) -> AnswerT:
        """Return what `read` makes of the answer; raises ObjectiveError after the last try, and
        NotAsked where the other end has failed too often.

        `read` raises ObjectiveError for an answer that is none, which is then asked for again.
        room: bytes that the answer may take beyond 4 MiB.
        """
        try:
            body = json.dumps(question, allow_nan=False).encode()
        except ValueError as error:
            raise ObjectiveError(
                f"{self.name()} is not asked about NaN or infinity, which JSON cannot say"
            ) from error

        def once() -> AnswerT:
            if self.rate_limit:
                self._pace.wait(1 / self.rate_limit)
            return read(self.answer(body, _LEAST_ROOM + room))

        self._circuit.require_closed(self.name())
        retries = 0 if self._circuit.on_trial else int(self.retries)
        try:
            told = Tries(self.name(), retries, self.pause_s, self.hide).of(once)
        except ObjectiveError as error:
            if isinstance(error.__cause__, Final):
                self._circuit.note_answer()
            else:
                self._circuit.note_failure(self.name(), int(self.trip_after), self.rest_s)
            raise
        self._circuit.note_answer()
        return told

    def hide(self, text: str) -> str:
        """Return a text without what must not be shown, and without control characters."""
        return "".join(letter if letter.isprintable() else " " for letter in text)

    @abstractmethod
    def answer(self, question: bytes, limit: int) -> bytes:
        """Ask once, and return what came back as it is; raises Final beyond `limit` bytes."""

    @abstractmethod
    def name(self) -> str:
        """Say who is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Http(Transport):
    """An HTTP endpoint that is asked by POST.

    headers are sent to the origin of `url` alone, and never shown. A user and a password in the
    address become a header. For redirects see fedzo.objectives.http_post.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        Transport.__post_init__(self)
        url, login = split_login(self.url)
        _check_headers(self.headers)
        if login and "authorization" not in {name.lower() for name in self.headers}:
            object.__setattr__(self, "headers", {**self.headers, "Authorization": login})
        object.__setattr__(self, "url", url)

    def answer(self, question: bytes, limit: int) -> bytes:
        headers = {"Content-Type": "application/json", **self.headers}
        return post(self.url, question, headers, timeout_s=self.timeout_s, limit=limit)

    def name(self) -> str:
        return f"the endpoint {shown_url(self.url)}"

    def hide(self, text: str) -> str:
        query = urlsplit(self.url).query
        for value in (*self.headers.values(), query, *re.split("[=&]", query)):
            for word in (value, *value.split()):
                text = text.replace(word, "***") if len(word) >= _SHORT else text
        return Transport.hide(self, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Transport):
    """A command that reads the question on stdin and answers on stdout."""

    command: Sequence[str]

    def __post_init__(self) -> None:
        Transport.__post_init__(self)
        if isinstance(self.command, str) or not self.command:
            raise ConfigError(f"command={self.command!r} must be a list: the program, arguments")
        if any("\0" in str(word) for word in self.command):
            raise ConfigError("command has a word with a zero byte in it; take that out")

    def answer(self, question: bytes, limit: int) -> bytes:
        return converse(self.command, question, timeout_s=self.timeout_s, limit=limit)

    def name(self) -> str:
        return f"the command {self.command[0]}"


def _check_headers(headers: Mapping[str, str]) -> None:
    """Raise ConfigError for headers that cannot be sent; values are not repeated."""
    for name, value in headers.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ConfigError(f"header {name!r} has a name of other signs than letters, digits, -")
        if name.lower() in _SET_BY_US:
            raise ConfigError(f"header {name} is set by fedzo; leave it out")
        if not isinstance(value, str) or not value.isprintable() or not _is_latin(value):
            raise ConfigError(f"the value of header {name} must be one line of Latin-1 text")


def _is_latin(text: str) -> bool:
    return all(ord(letter) < 256 for letter in text)

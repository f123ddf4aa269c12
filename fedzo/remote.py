"""Black boxes that live elsewhere: behind an HTTP endpoint, or behind a command.

Both get all points of a question at once as JSON, {"points": [[...], ...]}, and answer
{"values": [...]}, one number a point. Nothing but the standard library is needed at the other end.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require, require_nonnegative
from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objective import Bound, check_box


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remote(ABC):
    """What both kinds share.

    timeout_s: longest wait for an answer, over HTTP for each part of it; retries: further tries
    after an error or a timeout, the first after `pause_s`, each after twice the wait of the one
    before; batch: most points in one question, 0 is no limit. Tries that fail are not counted as
    queries: what was computed in vain is unknown.
    """

    dim: int
    lower: Bound = -math.inf
    upper: Bound = math.inf
    timeout_s: float = 60.0
    retries: int = 3
    pause_s: float = 0.5
    batch: int = 0

    def __post_init__(self) -> None:
        low, high = check_box(self.dim, self.lower, self.upper)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)
        require(0 < self.timeout_s < math.inf, "timeout_s", self.timeout_s, "positive and finite")
        for name in ("retries", "pause_s", "batch"):
            require_nonnegative(name, getattr(self, name))

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Ask for all points; raises ObjectiveError when the last try has failed."""
        points = x.detach().cpu().double().reshape(-1, self.dim)
        parts = points.split(self.batch or max(1, len(points)))
        values = [value for part in parts for value in self._ask(part.tolist())]
        return torch.tensor(values, dtype=torch.float64).to(x).reshape(x.shape[:-1])

    def _ask(self, points: list[list[float]]) -> list[float]:
        question = json.dumps({"points": points}).encode()
        pause = self.pause_s
        for tries_left in range(self.retries, -1, -1):
            try:
                return _values(self._answer(question), len(points))
            except FileNotFoundError as error:
                raise ObjectiveError(f"{self._name()} does not exist: {error}") from error
            except (OSError, HTTPException, subprocess.SubprocessError, ObjectiveError) as error:
                if tries_left == 0:
                    raise ObjectiveError(
                        f"{self._name()} failed {self.retries + 1} times, at last:"
                        f" {type(error).__name__}: {error}"
                    ) from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    @abstractmethod
    def _answer(self, question: bytes) -> bytes:
        """Ask once, and return what came back as it is."""

    @abstractmethod
    def _name(self) -> str:
        """Say who is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpObjective(_Remote):
    """An objective behind an HTTP endpoint that is asked by POST."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _Remote.__post_init__(self)
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url={self.url!r} must begin with http:// or https://")

    def _answer(self, question: bytes) -> bytes:
        headers = {"Content-Type": "application/json", **self.headers}
        request = urllib.request.Request(self.url, data=question, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            text = error.read(200).decode(errors="replace")
            raise ObjectiveError(f"status {error.code} {error.reason}: {text}") from error

    def _name(self) -> str:
        return f"the endpoint {self.url}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandObjective(_Remote):
    """An objective behind a command that reads the question on stdin and answers on stdout."""

    command: Sequence[str]

    def __post_init__(self) -> None:
        _Remote.__post_init__(self)
        if isinstance(self.command, str) or not self.command:
            raise ConfigError(f"command={self.command!r} must be a list: the program, arguments")

    def _answer(self, question: bytes) -> bytes:
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

    def _name(self) -> str:
        return f"the command {self.command[0]}"


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

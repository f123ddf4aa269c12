"""Serve a victim over HTTP on this machine, for trying out attacks on endpoints.

    with serving(victim) as server:
        RemoteVictim(transport=Http(url=server.url))

Speaks the protocol of fedzo.attacks.victims.remote. `failure_rate` of the requests are answered by
an error instead, before anything is computed; more than `rate_limit` requests a second are answered
by 429 with a Retry-After. It binds to 127.0.0.1 and stops when the block ends.
"""

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch

from fedzo.attacks.victims.victim import Answers, Victim


@dataclass(slots=True)
class Server:
    """A running server: its address, and how many images and requests it has answered."""

    url: str
    queries: int = 0
    requests: int = 0
    failures: int = 0
    limited: int = 0
    next_s: float = 0.0


@contextmanager
def serving(
    victim: Victim,
    *,
    port: int = 0,
    failure_rate: float = 0.0,
    rate_limit: float = 0.0,
    generator: np.random.Generator | None = None,
) -> Iterator[Server]:
    """Serve a victim in a thread; port 0 takes a free one. Failures need a generator."""
    lock, state = threading.Lock(), Server("")

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                status, answer = _answer(body, victim, state, failure_rate, rate_limit, generator)
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", f"{max(0.0, state.next_s - time.monotonic()):.3f}")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(
    body: bytes,
    victim: Victim,
    state: Server,
    failure_rate: float,
    rate_limit: float,
    generator: np.random.Generator | None,
) -> tuple[int, bytes]:
    """Return the status and the body of the response to one request."""
    now = time.monotonic()
    if rate_limit and now < state.next_s:
        state.limited += 1
        return 429, b'{"error": "too many requests"}'
    state.next_s = now + (1 / rate_limit if rate_limit else 0.0)
    if generator is not None and generator.random() < failure_rate:
        state.failures += 1
        return 500, b'{"error": "injected failure"}'
    try:
        images = torch.tensor(json.loads(body)["images"], dtype=torch.float32)
    except Exception as error:
        return 400, json.dumps({"error": str(error)[:200]}).encode()
    try:
        answers = victim.ask(images)
    except Exception as error:  # somebody's code may raise anything, and may not the next time
        return 500, json.dumps({"error": str(error)[:200]}).encode()
    state.requests += 1
    state.queries += int(answers.answered.sum())
    return 200, json.dumps({victim.tells: _rows(answers)}).encode()


def _rows(answers: Answers) -> list[Any]:
    rows: list[Any] = answers.labels.tolist()
    if answers.scores is not None:
        rows = [[None if math.isnan(z) else z for z in row] for row in answers.scores.tolist()]
    pairs = zip(rows, answers.answered.tolist(), strict=True)
    return [row if answered else None for row, answered in pairs]

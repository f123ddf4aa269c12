"""Clients on Ray: actors with fractions of CPUs and GPUs, a chunk of the cohort a call.

What all clients of an exchange get is put into Ray's object store once. Client states stay with
the driver, so an actor may die at any time: its chunk is tried again on a fresh one.
"""

import logging
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from fedzo.errors import ConfigError, RunError
from fedzo.exchange import ClientState, Exchange, Replies, join_replies
from fedzo.runtime.answers import NO_ANSWER
from fedzo.runtime.engine_configs import RayConfig
from fedzo.runtime.inprocess import check_disjoint, chunk_size_for
from fedzo.runtime.local import Environment, Rule
from fedzo.runtime.ray_worker import Answer, Worker, to_arrays, to_tensors

START_S = 120.0
"""Longest wait for the first actors."""


class RayEngine:
    """Performs exchanges on Ray actors that hold the clients' objectives.

    make_environment and make_rules are called in every actor. Raises RunError when Ray or the
    actors do not start, ConfigError when the cluster has no room for one.
    """

    def __init__(
        self,
        make_environment: Callable[[], Environment],
        make_rules: Callable[[], Mapping[str, Rule]],
        config: RayConfig | None = None,
    ) -> None:
        self._config = config or RayConfig()
        self._states: dict[int, ClientState] = {}
        self._owns_ray = start_ray(self._config)
        self._actors: list[Any] = []
        try:
            self._make = (ray.put(make_environment), ray.put(make_rules))
            wanted = self._config.num_actors or _room(self._config)
            self._actors = [self._actor() for _ in range(wanted)]
            self._await_actors()
        except BaseException:
            self.close()
            raise

    @property
    def num_actors(self) -> int:
        return len(self._actors)

    def actor_pids(self) -> list[int]:
        """Return the process numbers of the actors."""
        return [int(pid) for pid in ray.get([actor.pid.remote() for actor in self._actors])]

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        check_disjoint(exchanges)
        call = _Call(self, exchanges, time.monotonic() + timeout_s)
        return [_joined(answers) for answers in call.run()]

    def client_states(self) -> Mapping[int, ClientState]:
        return self._states

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        self._states = dict(states)

    def close(self) -> None:
        """Stop the actors, and Ray where this engine has started it."""
        if not ray.is_initialized():
            return
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if self._owns_ray:
            ray.shutdown()

    def _actor(self) -> Any:
        config = self._config
        share = config.memory_fraction or config.num_gpus
        kind = ray.remote(num_cpus=config.num_cpus, num_gpus=config.num_gpus)(Worker)
        return kind.remote(*self._make, config.device, share, torch.get_num_threads())

    def _await_actors(self) -> None:
        try:
            ray.get([actor.pid.remote() for actor in self._actors], timeout=START_S)
        except GetTimeoutError as error:
            raise RunError(
                f"{len(self._actors)} Ray actors of {self._config.num_cpus:g} CPUs and"
                f" {self._config.num_gpus:g} GPUs did not start within {START_S:g} s; the cluster"
                " has no free room, lower engine.num_actors"
            ) from error
        except RayError as error:
            raise RunError(f"a Ray actor does not start: {_reason(error)}") from error


@dataclass(slots=True)
class _Chunk:
    """Some clients of one exchange, and how often they may still be tried."""

    index: int
    exchange: Exchange
    shared: Any
    tries: int


class _Call:
    """One call of perform: chunks wait, run on actors, and end as replies."""

    def __init__(self, engine: RayEngine, exchanges: Sequence[Exchange], end: float) -> None:
        self._engine = engine
        self._end = end
        self._done: list[list[Answer]] = [[] for _ in exchanges]
        self._waiting = deque(c for i, e in enumerate(exchanges) for c in self._split(i, e))
        self._running: dict[Any, tuple[int, _Chunk]] = {}
        self._idle = list(range(engine.num_actors))

    def run(self) -> list[list[Answer]]:
        while self._waiting or self._running:
            while self._waiting and self._idle:
                self._submit(self._idle.pop(0), self._waiting.popleft())
            left = max(0.0, self._end - time.monotonic())
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=left)
            if not ready:
                self._give_up()
            for reference in ready:
                self._finish(reference)
        return self._done

    def _split(self, index: int, exchange: Exchange) -> list[_Chunk]:
        count, config = len(exchange.client_ids), self._engine._config
        spread = -(-count // self._engine.num_actors)
        size = config.chunk_size or min(spread, chunk_size_for(exchange))
        shared = ray.put(to_arrays(exchange.shared))
        positions = torch.arange(count).split(max(1, size))
        return [
            _Chunk(index, exchange.select(p.tolist()), shared, config.retries + 1)
            for p in positions
            if count
        ]

    def _submit(self, actor: int, chunk: _Chunk) -> None:
        exchange = chunk.exchange
        states = [to_arrays(self._engine._states.get(client, {})) for client in exchange.client_ids]
        handle = self._engine._actors[actor]
        reference = handle.serve.remote(
            exchange.kind,
            list(exchange.client_ids),
            chunk.shared,
            to_arrays(exchange.per_client),
            dict(exchange.config),
            states,
        )
        self._running[reference] = (actor, chunk)

    def _finish(self, reference: Any) -> None:
        """Take in a chunk that has ended, one way or another."""
        actor, chunk = self._running.pop(reference)
        ids = chunk.exchange.client_ids
        try:
            answer: Answer = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, ConfigError):
                raise ConfigError(str(error.cause)) from error
            self._fail(chunk, f"the actor raised {_reason(error)}")
        except RayError as error:
            self._replace(actor)
            self._try_again(chunk, f"its Ray actor died: {_reason(error)}")
        else:
            self._done[chunk.index].append(answer)
            changed = zip(ids, answer.states, strict=True)
            self._engine._states.update({c: to_tensors(s) for c, s in changed if s is not None})
        self._idle.append(actor)

    def _try_again(self, chunk: _Chunk, reason: str) -> None:
        """Try a chunk once more, or its clients one by one, so that one bad client falls alone."""
        chunk.tries -= 1
        count = len(chunk.exchange.client_ids)
        if chunk.tries > 0:
            self._waiting.append(chunk)
        elif count > 1:
            singles = [chunk.exchange.select([i]) for i in range(count)]
            self._waiting.extend(_Chunk(chunk.index, one, chunk.shared, 1) for one in singles)
        else:
            self._fail(chunk, reason)

    def _fail(self, chunk: _Chunk, reason: str) -> None:
        failures = dict.fromkeys(chunk.exchange.client_ids, reason)
        failed = Replies(client_ids=[], failures=failures)
        self._done[chunk.index].append(Answer(failed, {}, []))

    def _give_up(self) -> None:
        """Time is up: whoever has not answered is missing, and actors still busy are replaced."""
        for actor, chunk in self._running.values():
            self._replace(actor)
            self._fail(chunk, NO_ANSWER)
        for chunk in self._waiting:
            self._fail(chunk, NO_ANSWER)
        self._running.clear()
        self._waiting.clear()

    def _replace(self, actor: int) -> None:
        ray.kill(self._engine._actors[actor])
        self._engine._actors[actor] = self._engine._actor()


def _joined(answers: Sequence[Answer]) -> Replies:
    """Join the answers of chunks, which are ranges of clients, with one copy of each number."""
    replies = join_replies([answer.replies for answer in answers])
    some = [answer for answer in answers if len(answer.replies.client_ids)]
    some.sort(key=lambda answer: answer.replies.client_ids[0])
    names = some[0].tensors if some else {}
    joined = {name: np.concatenate([answer.tensors[name] for answer in some]) for name in names}
    return replace(replies, tensors={name: torch.from_numpy(a) for name, a in joined.items()})


def start_ray(config: RayConfig) -> bool:
    """Connect to Ray, or start it here; return whether it is ours to stop."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {"address": config.address}
    if not config.address:
        own = {"include_dashboard": False, "num_cpus": config.cluster_cpus or None}
        own["num_gpus"] = None if config.cluster_gpus < 0 else config.cluster_gpus
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(
                log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **own
            )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"at {config.address!r}" if config.address else "on this machine"
        raise RunError(f"Ray does not start {where}: {_reason(error)}") from error
    return True


def _room(config: RayConfig) -> int:
    """Return how many actors fit on the nodes of the cluster, at least one."""
    count, seen = 0, {"CPU": 0.0, "GPU": 0.0}
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for node in nodes:
        if not node["Alive"]:
            continue
        cpus, gpus = (float(node["Resources"].get(name, 0.0)) for name in ("CPU", "GPU"))
        fits = cpus / config.num_cpus
        if config.num_gpus > 0:
            fits = min(fits, gpus / config.num_gpus)
        count += int(fits + 1e-9)
        seen = {"CPU": seen["CPU"] + cpus, "GPU": seen["GPU"] + gpus}
    if count == 0:
        raise ConfigError(
            f"no node of the Ray cluster has room for an actor with engine.num_cpus="
            f"{config.num_cpus:g} and engine.num_gpus={config.num_gpus:g}; it has {seen['CPU']:g}"
            f" CPUs and {seen['GPU']:g} GPUs in all; lower them"
        )
    return count


def _reason(error: BaseException) -> str:
    """Return the last line that says something, of an error that may quote a whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200]}" if lines else type(error).__name__

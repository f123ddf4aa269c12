"""A pool of Ray actors: who is ready, who is starting, and a fresh one for each that dies."""

import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import ray
import torch
from ray.exceptions import RayError

from fedzo.errors import ConfigError, RunError
from fedzo.runtime.engine_configs import RayConfig
from fedzo.runtime.local import Environment, Rules
from fedzo.runtime.ray.worker import Worker

LISTENER_S = 10.0
"""Longest wait for an answer at a cluster's address."""
START_S = 120.0
"""Longest wait for the first actors."""


class ActorPool:
    """Actors by number; `starting` maps what Ray will answer when an actor is up to its number.

    Raises ConfigError when the cluster has no room for an actor or the world cannot be copied,
    RunError when the actors do not start.
    """

    def __init__(
        self,
        make_environment: Callable[[], Environment],
        make_rules: Callable[[], Rules],
        config: RayConfig,
        most: int | None = None,
    ) -> None:
        self._config = config
        self._owns_ray = start_ray(config)
        self._actors: list[Any] = []
        self.starting: dict[Any, int] = {}
        try:
            self._make = (_copied(make_environment), _copied(make_rules))
            room = _room(config)
            if self._owns_ray:
                config.require_room(room)
            count = config.num_actors or min(room, most or room)
            self._actors = [None] * count
            for number in range(count):
                self._start(number)
            self._await_all()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._actors)

    def __getitem__(self, number: int) -> Any:
        return self._actors[number]

    def replace(self, number: int) -> None:
        """Kill an actor and start another in its place."""
        ray.kill(self._actors[number])
        self._start(number)

    def up(self, reference: Any) -> int | None:
        """Return the number of the actor that has come up; None when it died, and was replaced."""
        number = self.starting.pop(reference)
        try:
            ray.get(reference)
        except RayError:
            self._start(number)
            return None
        return number

    def close(self) -> None:
        """Stop the actors, and Ray where this pool has started it."""
        if ray.is_initialized():
            for actor in self._actors:
                if actor is not None:
                    ray.kill(actor)
            if self._owns_ray:
                ray.shutdown()
        self._actors, self._owns_ray = [], False
        self.starting.clear()

    def _start(self, number: int) -> None:
        config = self._config
        share = config.memory_fraction or config.num_gpus
        kind: Any = ray.remote(num_cpus=config.num_cpus, num_gpus=config.num_gpus)(Worker)
        actor: Any = kind.remote(*self._make, config.device, share, torch.get_num_threads())
        self._actors[number] = actor
        self.starting[actor.pid.remote()] = number

    def _await_all(self) -> None:
        waiting, end = list(self.starting), time.monotonic() + START_S
        while waiting:
            left = max(0.0, end - time.monotonic())
            done, waiting = ray.wait(waiting, num_returns=1, timeout=left)
            if not done:
                raise RunError(
                    f"{len(self)} Ray actors of {self._config.num_cpus:g} CPUs and"
                    f" {self._config.num_gpus:g} GPUs did not start within {START_S:g} s; the"
                    " cluster has no free room, lower engine.num_actors"
                )
            try:
                ray.get(done)
            except RayError as error:
                reason = reason_of(error)
                _, wrong, told = reason.partition(f"{ConfigError.__name__}: ")
                if wrong:
                    raise ConfigError(told) from error
                raise RunError(f"a Ray actor does not start: {reason}") from error
        self.starting.clear()


def start_ray(config: RayConfig) -> bool:
    """Connect to Ray, or start it here; return whether it is ours to stop."""
    if ray.is_initialized():
        if config.address:
            raise ConfigError(
                f"engine.address={config.address} cannot be used: this process already runs on"
                " Ray; leave it out, or call ray.shutdown() before"
            )
        return False
    if config.address:
        _require_listener(config.address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if config.address:
        own["address"] = config.address
    else:
        gpus = None if config.cluster_gpus < 0 else config.cluster_gpus
        own |= {"address": "local", "include_dashboard": False}
        own |= {"num_cpus": config.cluster_cpus or None, "num_gpus": gpus}
    ended = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(configure_logging=False, **own)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"at {config.address!r}" if config.address else "on this machine"
        raise RunError(f"Ray does not start {where}: {reason_of(error)}") from error
    if ended is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ended)  # Ray's own writes a dump, and ends the process
    return True


def _require_listener(address: str) -> None:
    """Raise RunError where nobody listens at host:port: Ray would wait for ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=LISTENER_S).close()
    except OSError as error:
        raise RunError(f"Ray does not start at {address!r}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """Return the last line that says something, of an error that may quote a whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200]}" if lines else type(error).__name__


def _copied(make: Callable[[], Any]) -> Any:
    """Put a function into the object store; raises ConfigError when it cannot be copied."""
    try:
        return ray.put(make)
    except TypeError as error:
        raise ConfigError(
            f"the clients' objectives cannot be copied to other processes ({reason_of(error)}); let"
            " the function that makes an objective also make what cannot be copied, such as locks"
            " and connections"
        ) from error


def _room(config: RayConfig) -> int:
    """Return how many actors fit on the nodes of the cluster.

    Raises ConfigError when there is room for none.
    """
    needs = {"CPU": config.num_cpus, "GPU": config.num_gpus}
    needs = {name: need for name, need in needs.items() if need > 0}
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    has = [
        {k: float(n["Resources"].get(k, 0)) for k in ("CPU", "GPU")} for n in nodes if n["Alive"]
    ]
    fits = sum(min(int(node[k] / need + 1e-9) for k, need in needs.items()) for node in has)
    if fits == 0:
        total = {name: sum(node[name] for node in has) for name in ("CPU", "GPU")}
        raise ConfigError(
            f"no node of the Ray cluster has room for an actor with engine.num_cpus="
            f"{config.num_cpus:g} and engine.num_gpus={config.num_gpus:g}; it has {total['CPU']:g}"
            f" CPUs and {total['GPU']:g} GPUs in all; lower them"
        )
    return fits

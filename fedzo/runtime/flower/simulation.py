"""Flower's own simulation engine as something to open and close.

    simulation = FlowerSimulation(client_app, num_clients=10)
    with simulation as grid:
        FlowerEngine(grid, limit_nodes=simulation.limit_nodes).perform(...)

Flower wants to call a ServerApp; here one runs in a thread, hands out its grid, and waits until the
simulation is closed.
"""

import contextlib
import logging
import math
import os
import threading
import time
import warnings
from functools import partial
from queue import Empty, Queue
from types import TracebackType

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedzo.errors import ConfigError, RunError
from fedzo.protocol._compat import check_copyable, run_flower_simulation

START_S = 120.0


class FlowerSimulation:
    """A running Flower simulation of `num_clients` nodes, every one with a ClientApp.

    num_cpus, num_gpus: what Flower's Ray actors reserve, fractions share. A node has the
    partition-id of its number. A Ray actor whose process is gone is replaced, and one that takes
    longer for a message than `limit_nodes` allows. Raises RunError when the simulation does not
    start.
    """

    def __init__(
        self,
        client_app: ClientApp,
        *,
        num_clients: int,
        num_cpus: int = 1,
        num_gpus: float = 0.0,
        verbose: bool = False,
    ) -> None:
        if num_clients < 1:
            raise ConfigError(f"num_clients={num_clients} must be at least 1")
        if num_cpus > (os.cpu_count() or 1):
            raise ConfigError(
                f"engine.num_cpus={num_cpus} exceeds the {os.cpu_count()} CPUs here; lower it"
            )
        check_copyable(client_app)
        self._grids: Queue[Grid] = Queue()
        self._errors: list[BaseException] = []
        self._finished = threading.Event()
        self._verbose = verbose
        self._deadline = math.inf
        resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        arguments = (client_app, num_clients, resources)
        self._thread = threading.Thread(target=self._simulate, args=arguments, daemon=True)

    def __enter__(self) -> Grid:
        """Start the simulation and return its grid."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
        logger, ray = logging.getLogger("flwr"), logging.getLogger("ray")
        self._levels = {logger: logger.level, ray: ray.level}
        for each in self._levels:
            each.setLevel(logging.INFO if self._verbose else logging.CRITICAL)  # told in histories
        self._thread.start()
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with contextlib.suppress(Empty):
                return self._grids.get(timeout=0.1)
            self.check()
        self.close()
        raise RunError(f"Flower's simulation did not start within {START_S:g} s")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if kind is None:
            self.check()

    def limit_nodes(self, seconds: float) -> None:
        """Give nodes so long, from now on, for the messages that are pushed next."""
        self._deadline = time.monotonic() + seconds

    def check(self) -> None:
        """Raise RunError if the simulation has failed."""
        if self._errors:
            error = self._errors[0].__cause__ or self._errors[0]
            raise RunError(f"Flower's simulation failed: {type(error).__name__}: {error}")

    def close(self) -> None:
        """End the simulation and wait for it."""
        self._finished.set()
        self._thread.join(timeout=START_S)
        for logger, level in self._levels.items():
            logger.setLevel(level)

    def _simulate(
        self, client_app: ClientApp, num_clients: int, resources: dict[str, float]
    ) -> None:
        from fedzo.runtime.flower.actor_pool import ReplacingPool  # imports Ray

        server_app = ServerApp()
        pool = partial(ReplacingPool, deadline=lambda: self._deadline, ended=self._finished)

        @server_app.main()
        def main(grid: Grid, _: Context) -> None:
            self._grids.put(grid)
            self._finished.wait()

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run_flower_simulation(server_app, client_app, num_clients, resources, pool)
        except BaseException as error:  # handed to whoever closes the simulation
            self._errors.append(error)

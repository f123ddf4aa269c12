"""Messages a second of RayEngine against Flower's own engine, and the time of a deployed exchange.

A message is a client's echo of d float32 numbers: RayEngine in chunks through actors, Flower's
engine as its ServerApps use it (send_and_receive, one message a client). Both are started once,
warmed up by three exchanges, and timed over seven; the median exchange counts.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import ray
import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from fedzo.objectives.objective import TorchObjective
from fedzo.protocol.exchange import Exchange
from fedzo.protocol.question import Answer, Question
from fedzo.runtime.engine_configs import RayConfig
from fedzo.runtime.flower.simulation import FlowerSimulation
from fedzo.runtime.local import Answered, Clients, FunctionEnvironment, Rules
from fedzo.runtime.ray.pool import RayEngine
from scenarios.deployed.deploy import Trial, deploy

CLIENTS, WARM_UP, REPEATS = 100, 3, 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Echoed(Answer):
    """What everybody was sent, one row a client."""

    x: Float[Tensor, "n d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo(Question[Echoed]):
    """Numbers to be sent back."""

    kind: ClassVar[str] = "query.echo"
    answer: ClassVar[type[Answer]] = Echoed

    x: Float[Tensor, " d"]


def echo(question: Echo, clients: Clients) -> Answered:
    """Answer what was sent."""
    return Echoed(x=clients.at(question.x)), clients.states


def nothing(_: int) -> TorchObjective:
    return TorchObjective(function=lambda x: x.sum(-1), dim=1)


def echo_rules() -> Rules:
    return {Echo: echo}


def seconds(exchange: Callable[[], int]) -> float:
    """Return the median time of an exchange; every client must have answered."""
    times = []
    for repeat in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        answered = exchange()
        assert answered == CLIENTS, f"{answered} of {CLIENTS} clients answered"
        if repeat >= WARM_UP:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def ray_rates(dims: Sequence[int]) -> dict[int, float]:
    engine = RayEngine(lambda: FunctionEnvironment(nothing), echo_rules, RayConfig())  # type: ignore[arg-type]
    rates = {}
    try:
        for dim in dims:
            x = torch.ones(dim, dtype=torch.float32)

            def exchange(x: torch.Tensor = x) -> int:
                ask = Exchange(question=Echo(x=x), client_ids=range(CLIENTS))
                [replies] = engine.perform([ask], timeout_s=600)
                assert replies.tensors["x"].shape == (len(replies.client_ids), len(x))
                return len(replies.client_ids)

            rates[dim] = CLIENTS / seconds(exchange)
    finally:
        engine.close()
        ray.shutdown()
    return rates


def flower_rates(dims: Sequence[int]) -> dict[int, float]:
    app = ClientApp()

    @app.query("echo")
    def answer(message: Message, _: Context) -> Message:
        return Message(message.content, reply_to=message)

    rates = {}
    with FlowerSimulation(app, num_clients=CLIENTS) as grid:
        while len(list(grid.get_node_ids())) < CLIENTS:
            time.sleep(0.1)
        for dim in dims:
            record = ArrayRecord({"x": Array(np.ones(dim, dtype=np.float32))})

            def exchange(record: ArrayRecord = record) -> int:
                content = RecordDict({"x": record})
                nodes = list(grid.get_node_ids())
                asked = [Message(content, node, "query.echo") for node in nodes]
                replies = list(grid.send_and_receive(asked, timeout=600))
                return sum(r.content["x"]["x"].numpy() is not None for r in replies)

            rates[dim] = CLIENTS / seconds(exchange)
    return rates


def deployed_seconds() -> float:
    """Return the median time of an exchange with two SuperNodes, over four rounds."""
    trial = Trial(run_config={"scenario": "quadratic", "rounds": 4, "settings": "scenario.dim=30"})
    with tempfile.TemporaryDirectory() as place:
        quiet = Console(file=sys.stderr, quiet=True)
        result = deploy(trial, Path(place) / "net", console=quiet)
    return float(result["deployment"]["exchange_s"])


def wire() -> dict[str, float]:
    """Return ratios and rates by name, and the deployed exchange."""
    dims = (10, 1_000_000)
    ours, theirs = ray_rates(dims), flower_rates(dims)
    results = {}
    for dim in dims:
        results[f"Ray over Flower's engine, 100 clients, d = {dim:,}"] = ours[dim] / theirs[dim]
        results[f"  RayEngine, messages a second, d = {dim:,}"] = ours[dim]
        results[f"  Flower's engine, messages a second, d = {dim:,}"] = theirs[dim]
    results["deployed exchange with two nodes, seconds"] = deployed_seconds()
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    numbers = wire()
    if "--json" in sys.argv:
        print(json.dumps(numbers))
    else:
        for name, value in numbers.items():
            print(f"{name:60s} {value:10.2f}")

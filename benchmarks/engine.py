"""Speed of engine and strategy, end to end, against loops that this file contains.

Every number is a ratio of medians of five interleaved runs in one process, one torch thread. Run
with `make bench`, which fails when a limit is missed; `--quick` leaves out compilation.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from clients import RULE_CONFIGS, make_rules
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.objective import ModuleObjective, TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.randomness import stream, streams
from fedzo.runtime.inprocess import InProcessEngine
from scenarios.problems.mlp_cohort import MLPShards, mlp_dim
from strategies import FedAvg, FedAvgConfig, run_rounds
from strategies.anchored.fedamd import FedAMD, FedAMDConfig
from strategies.core.driver import RunSettings

LAYERS, CLIENTS, EXAMPLES, STEPS, BATCH = (32, 64, 10), 100, 64, 4, 16
REPEATS = 5
LIMITS = {
    "eager, cohort 10": 2.2,
    "eager, cohort 100": 8.0,
    "FedAMD, cohort 100": 5.0,
    "modules of one's own, cohort 10": 1.2,
    "modules of one's own, cohort 100": 3.0,
    "modules of one's own, compiled, cohort 10": 4.0,
    "modules of one's own, compiled, cohort 100": 8.0,
    "compiled, cohort 10": 10.0,
    "compiled, cohort 100": 16.0,
    "Ray over Flower's engine, 100 clients, d = 10": 6.0,
    "Ray over Flower's engine, 100 clients, d = 1,000,000": 6.0,
}
AT_MOST = {"zeroth": 1.3, "MiB": 10.0, "deployed exchange": 8.0}


class Shards:
    """100 clients with 64 random examples each."""

    noise_std = 0.0

    def __init__(self) -> None:
        generator = stream(0, "benchmark")
        total = CLIENTS * EXAMPLES
        self.inputs = torch.from_numpy(generator.standard_normal((total, LAYERS[0]))).float()
        self.labels = torch.from_numpy(generator.integers(0, LAYERS[-1], total))
        self.start = torch.from_numpy(generator.standard_normal(mlp_dim(LAYERS))).float() * 0.1

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        ids = torch.as_tensor(client_ids)
        return MLPShards(
            inputs=self.inputs,
            targets=self.labels,
            offsets=ids * EXAMPLES,
            sizes=torch.full((len(client_ids),), EXAMPLES),
            layers=LAYERS,
        )


class Owned:
    """The same clients as people write them: a module and its data each."""

    noise_std = 0.0

    def __init__(self, shards: Shards) -> None:
        spans = [slice(i * EXAMPLES, (i + 1) * EXAMPLES) for i in range(CLIENTS)]
        self.clients = [
            ModuleObjective(network(), nn.CrossEntropyLoss(), shards.inputs[s], shards.labels[s])
            for s in spans
        ]

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        return cohort_of([self.clients[client] for client in client_ids])


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))


def plain_loop(shards: Shards, cohort: int) -> Callable[[int], None]:
    """FedAvg as everybody writes it: one model, one optimizer, client after client."""
    model = network()
    loss = nn.CrossEntropyLoss()

    def rounds(count: int) -> None:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        for index in range(count):
            generator = stream(0, "plain", index)
            total = {name: torch.zeros_like(value) for name, value in state.items()}
            for client in generator.choice(CLIENTS, cohort, replace=False).tolist():
                model.load_state_dict(state)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                order = torch.from_numpy(generator.permutation(EXAMPLES)) + client * EXAMPLES
                for rows in order.split(BATCH)[:STEPS]:
                    optimizer.zero_grad()
                    loss(model(shards.inputs[rows]), shards.labels[rows]).backward()
                    optimizer.step()
                for name, value in model.state_dict().items():
                    total[name] += value
            state = {name: value / cohort for name, value in total.items()}

    return rounds


def ours(
    shards: Shards, cohort: int, *, compile: bool, owned: Owned | None = None
) -> Callable[[int], None]:
    """The same through strategy, driver and engine, with history and everything counted."""
    client = RULE_CONFIGS["first_order"](batch_size=BATCH, compile=compile)
    config = FedAvgConfig(
        participation=cohort / CLIENTS, local_steps=STEPS, local_lr=0.1, evaluate_every=0
    )
    strategy = FedAvg(config, client=client)
    rules = make_rules()
    problem = OpenProblem(initial_x=shards.start, asks_clients=False)

    def rounds(count: int) -> None:
        engine = InProcessEngine(owned or shards, rules)
        settings = RunSettings(num_clients=CLIENTS, num_rounds=count)
        run_rounds(strategy, engine, problem, settings)

    return rounds


def anchored(shards: Shards, cohort: int) -> Callable[[int], None]:
    """FedAMD: every second round the cohort anchors, every other it mines."""
    client = RULE_CONFIGS["anchor"](batch_size=BATCH)
    config = FedAMDConfig(
        participation=cohort / CLIENTS,
        local_steps=STEPS,
        local_lr=0.1,
        evaluate_every=0,
        init="zero",
    )
    strategy = FedAMD(config, client=client)
    rules = make_rules()
    problem = OpenProblem(initial_x=shards.start, asks_clients=False)

    def rounds(count: int) -> None:
        engine = InProcessEngine(shards, rules)
        settings = RunSettings(num_clients=CLIENTS, num_rounds=count)
        run_rounds(strategy, engine, problem, settings)

    return rounds


class Bowls:
    """Ten dense quadratics, stacked."""

    noise_std = 0.0

    def __init__(self, dim: int) -> None:
        generator = stream(1, "bowls", dim)
        root = torch.from_numpy(generator.standard_normal((10, dim, dim))) / dim**0.5
        self.matrices = root @ root.mT
        self.dim = dim

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        everybody = len(client_ids) == len(self.matrices)  # as by hand, where nothing is copied
        return StackedBowls(self.matrices if everybody else self.matrices[list(client_ids)])


class StackedBowls:
    """f_i(x) = x^T A_i x, one batched product for all."""

    lower, upper = -float("inf"), float("inf")

    def __init__(self, matrices: Tensor) -> None:
        self.matrices, self.failures = matrices, {}
        self.num_clients, self.dim = matrices.shape[0], matrices.shape[-1]

    def value(self, x: Tensor) -> Tensor:
        return ((x @ self.matrices) * x).sum(-1)


ZO_STEPS, DIRECTIONS, MU, LR = 10, 20, 1e-3, 1e-3


def zo_by_hand(bowls: Bowls) -> Callable[[int], None]:
    """The best batched form that we know: keyed directions, one bmm for all clients, plain SGD."""
    import numpy as np

    d = bowls.dim

    def rounds(count: int) -> None:
        x0 = torch.ones(d, dtype=torch.float64)
        for index in range(count):
            generators = streams(0, "directions", 0, index + 1, clients=range(10))
            x = x0.expand(10, d)
            block = np.empty((10, DIRECTIONS, d))
            for _ in range(ZO_STEPS):
                for row, generator in zip(block, generators, strict=True):
                    generator.standard_normal(out=row)
                u = torch.from_numpy(block)
                base = x.unsqueeze(1)
                points = torch.cat([base, torch.add(base, u, alpha=MU)], dim=1)
                values = ((points @ bowls.matrices) * points).sum(-1)
                c = (values[:, 1:] - values[:, :1]) * (1 / (MU * DIRECTIONS))
                x = torch.sub(x, torch.bmm(c.unsqueeze(1), u).squeeze(1), alpha=LR)
            x0 = x.mean(0)

    return rounds


def zo_ours(bowls: Bowls) -> Callable[[int], None]:
    """The rule zeroth_order through strategy, driver and engine."""
    client = RULE_CONFIGS["zeroth_order"](
        directions="gaussian", num_directions=DIRECTIONS, mu=MU, optimizer="sgd"
    )
    config = FedAvgConfig(local_steps=ZO_STEPS, local_lr=LR, evaluate_every=0)
    strategy = FedAvg(config, client=client)
    start = torch.ones(bowls.dim, dtype=torch.float64)

    def rounds(count: int) -> None:
        engine = InProcessEngine(bowls, make_rules())
        problem = OpenProblem(initial_x=start, asks_clients=False)
        run_rounds(strategy, engine, problem, RunSettings(num_clients=10, num_rounds=count))

    return rounds


def median_seconds(work: dict[str, Callable[[int], None]], rounds: int) -> dict[str, float]:
    """Return the median time of a round of each, over interleaved repeats."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for run in work.values():
        run(10)
    for _ in range(REPEATS):
        for name, run in work.items():
            begin = time.perf_counter()
            run(rounds)
            times[name].append((time.perf_counter() - begin) / rounds)
    return {name: statistics.median(values) for name, values in times.items()}


def first_order(quick: bool) -> dict[str, float]:
    """Return client updates a second of the plain loop, and our ratios to it."""
    shards, result = Shards(), {}
    owned = Owned(shards)
    for cohort in (10, 100):
        work = {
            "plain": plain_loop(shards, cohort),
            "eager": ours(shards, cohort, compile=False),
            "modules of one's own": ours(shards, cohort, compile=False, owned=owned),
        }
        if cohort == CLIENTS:
            work["FedAMD"] = anchored(shards, cohort)
        if not quick:
            work["compiled"] = ours(shards, cohort, compile=True)
            work["modules of one's own, compiled"] = ours(shards, cohort, compile=True, owned=owned)
        seconds = median_seconds(work, 50 if cohort == 10 else 20)
        result[f"plain loop, cohort {cohort}, updates/s"] = cohort / seconds["plain"]
        for name in list(work)[1:]:
            result[f"{name}, cohort {cohort}"] = seconds["plain"] / seconds[name]
    return result


def zeroth_order() -> dict[str, float]:
    """Return our time over that of the hand-written form, by dimension."""
    result = {}
    for dim in (30, 100, 300):
        bowls = Bowls(dim)
        seconds = median_seconds({"hand": zo_by_hand(bowls), "ours": zo_ours(bowls)}, 30)
        result[f"zeroth order, dim {dim}, time over hand-written"] = (
            seconds["ours"] / seconds["hand"]
        )
    return result


class Crowd:
    """Any number of registered clients, each with a small objective made when it is asked."""

    noise_std = 0.0

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        def make(client: int) -> TorchObjective:
            return TorchObjective(function=lambda x: (x - client % 7).square().sum(-1), dim=10)

        return cohort_of([make(client) for client in client_ids])


def crowd_round(clients: int) -> dict[str, float]:
    """Run ten rounds of 100 out of many clients; return seconds and this process's peak memory."""
    client = RULE_CONFIGS["zeroth_order"](estimator="residual")
    strategy = FedAvg(FedAvgConfig(participation=100 / clients, evaluate_every=0), client=client)
    start = torch.zeros(10, dtype=torch.float64)
    problem = OpenProblem(initial_x=start, asks_clients=False)
    begin = time.perf_counter()
    engine = InProcessEngine(Crowd(), make_rules())
    run_rounds(strategy, engine, problem, RunSettings(num_clients=clients, num_rounds=10))
    seconds = time.perf_counter() - begin
    status = Path("/proc/self/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
    return {"s": seconds, "MiB": peak_kib / 1024}


def million() -> dict[str, float]:
    """Compare a million registered clients with a hundred, each in a process of its own."""

    def measure(clients: int) -> dict[str, float]:
        command = [sys.executable, __file__, "--crowd", str(clients)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        numbers: dict[str, float] = json.loads(done.stdout)
        return numbers

    few, many = measure(100), measure(10**6)
    return {
        "a million clients, seconds for 10 rounds": many["s"],
        "a million clients, MiB above a hundred": many["MiB"] - few["MiB"],
    }


def wire() -> dict[str, float]:
    """Measure Ray, Flower and a deployment in a process of their own."""
    command = [sys.executable, str(Path(__file__).with_name("wire.py")), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    numbers: dict[str, float] = json.loads(done.stdout)
    return numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out compilation and wires")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--crowd", type=int, help="only ten rounds of this many clients")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.crowd:
        print(json.dumps(crowd_round(options.crowd)))
        return 0
    parts = [partial(first_order, options.quick), zeroth_order, million]
    results: dict[str, float] = {}
    missed = 0
    for part in parts if options.quick else [*parts, wire]:
        measured = part()
        results |= measured
        if not options.json:  # at once: what comes later may fail
            missed += shown(measured)
    if options.json:
        print(json.dumps(results))
    return 1 if missed else 0


def shown(results: dict[str, float]) -> int:
    """Print ratios with their limits, and return how many miss theirs."""
    missed = 0
    for name, value in results.items():
        at_most = next((most for part, most in AT_MOST.items() if part in name), None)
        kept = value <= at_most if at_most else value >= LIMITS.get(name, 0)
        missed += not kept
        limit = at_most or LIMITS.get(name)
        note = "" if limit is None else f"   limit {limit:g}{'' if kept else '   MISSED'}"
        print(f"{name:52s} {value:10.2f}{note}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())

"""Memory and seconds of a zeroth-order step on a module of 10^7 parameters, and of its directions.

    .venv/bin/python benchmarks/in_place.py        # five minutes

Each way of asking runs in a fresh process with one torch thread: a forward pass, one round of FedZO
through `federate` (one client, one direction, central differences), a step in place with the same,
and three rounds of `fedzo run custom --strategy mezo` with two clients that share the module.
Memory is the peak of the resident set above what it was before (Linux: VmHWM, reset by
/proc/self/clear_refs), and ru_maxrss of the whole process. Exits with 1 where a step in place needs
more than 1.3 times the largest tensor above a forward pass, in modules whose largest tensor is not
lost beside the 4 MiB in which directions are drawn.

glibc is told to return freed blocks of a MiB (MALLOC_MMAP_THRESHOLD_): by itself it keeps up to
32 MiB of them, in holes that depend on the order of the layers, which hides what a way needs.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fedzo.estimation.in_place import InPlace
from fedzo.estimation.keys import Key
from fedzo.estimation.schemes import SCHEMES
from fedzo.objectives.objective import ModuleObjective
from scenarios import federate
from scenarios.cli.__main__ import main as command_line

WIDTHS = {
    "wide": (784, 2048, 2048, 2048, 10),
    "square": (3162, 3162, 10),
    "deep": tuple([500] * 41),
}
LIMIT, LIMITED = 1.3, ("wide", "square")
MU = 0.01
MIB = 1 << 20


def make(shape: str) -> ModuleObjective:
    widths = WIDTHS[shape]
    layers: list[nn.Module] = []
    for k, n in itertools.pairwise(widths):
        layers += [nn.Linear(k, n), nn.ReLU()]
    inputs = torch.linspace(-1, 1, 16 * widths[0]).reshape(16, -1)
    return ModuleObjective(
        nn.Sequential(*layers[:-1]), nn.functional.cross_entropy, inputs, torch.arange(16) % 10
    )


def forward(objective: ModuleObjective) -> None:
    with torch.no_grad():
        float(objective.own_value())


def in_place(objective: ModuleObjective, law: str, step: int = 0) -> None:
    place = InPlace.of_module(objective)
    keys = [Key(seed=0, parts=("directions", step), law=law)]  # type: ignore[arg-type]
    place.estimate(keys, SCHEMES["central"], MU).add_to_(place.place, -1e-3)


def by_federate(objective: ModuleObjective, directions: str) -> None:
    settings = {
        "strategy.local_steps": 1,
        "client.estimator": "central",
        "client.directions": directions,
        "client.num_directions": 1,
        "client.mu": MU,
        "client.optimizer": "sgd",
    }
    federate(lambda _: objective, num_clients=1, num_rounds=1, settings=settings)


GIVEN: list[ModuleObjective] = []


def given(_client: int) -> ModuleObjective:
    """Return the objective of this process, for --set scenario.objective=__main__:given."""
    return GIVEN[-1]


def by_command(objective: ModuleObjective, law: str) -> None:
    GIVEN.append(objective)
    told = ("scenario.objective=__main__:given", f"client.directions={law}", f"client.mu={MU}")
    settings = [word for setting in told for word in ("--set", setting)]
    sys.argv = ["fedzo", "run", "custom", "--strategy", "mezo", "--clients", "2", "--rounds", "3"]
    sys.argv += [*settings, "--json"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        command_line()


WAYS: dict[str, Callable[[ModuleObjective], None]] = {
    "forward pass": forward,
    "in place, signs": lambda o: in_place(o, "rademacher"),
    "in place, normals": lambda o: in_place(o, "gaussian"),
    "mezo run, signs": lambda o: by_command(o, "rademacher"),
    "mezo run, normals": lambda o: by_command(o, "gaussian"),
    "federate, signs": lambda o: by_federate(o, "rademacher"),
    "federate, normals": lambda o: by_federate(o, "gaussian"),
}


def resident(name: str) -> int:
    """Return VmRSS or VmHWM in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def measure(shape: str, way: str) -> dict[str, float]:
    torch.set_num_threads(1)
    small = ModuleObjective(
        nn.Linear(4, 3), nn.functional.cross_entropy, torch.ones(2, 4), torch.tensor([0, 1])
    )
    WAYS[way](small)  # what is imported late is no matter of size
    objective = make(shape)
    forward(objective)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.process_time()
    WAYS[way](objective)
    seconds = time.process_time() - start
    peak = resident("VmHWM") - before
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak": peak, "maxrss": whole, "seconds": seconds}


def in_fresh_process(shape: str, way: str, repeats: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--only", shape, way]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MIB)}
    runs = [
        json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
        )
        for _ in range(repeats)
    ]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def speed(draw: Callable[[], object], numbers: int) -> float:
    """Return nanoseconds of CPU time a number, the median of seven."""
    times = []
    for _ in range(7):
        start = time.process_time()
        draw()
        times.append(time.process_time() - start)
    return statistics.median(times) / numbers * 1e9


def print_speeds(numbers: int = 1 << 21) -> None:
    torch.set_num_threads(1)
    out, generator = torch.empty(numbers), torch.Generator().manual_seed(0)
    pcg = np.random.Generator(np.random.PCG64(0))
    normal, sign = Key(seed=0, law="gaussian"), Key(seed=0, law="rademacher")
    rows = {
        "keyed signs": lambda: sign.fill_(out, 0),
        "keyed normals": lambda: normal.fill_(out, 0),
        "words of Philox 4x32-10": lambda: normal.words(0, numbers),
        "torch normal_ (generator)": lambda: out.normal_(generator=generator),
        "numpy PCG64 normals, float32": lambda: pcg.standard_normal(numbers, dtype=np.float32),
        "numpy PCG64 normals, float64": lambda: pcg.standard_normal(numbers),
    }
    for name, draw in rows.items():
        print(f"{name:32} {speed(draw, numbers):6.1f} ns a number")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs=2, metavar=("SHAPE", "WAY"))
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(measure(*chosen.only)))
        return
    print_speeds()
    missed = []
    for shape in WIDTHS:
        objective = make(shape)
        largest = 4 * max(p.numel() for p in objective.module.parameters())
        print(f"\n{shape}: {objective.dim:,} parameters, largest tensor {largest / MIB:.1f} MiB")
        base = 0.0
        for way in WAYS:
            found = in_fresh_process(shape, way, chosen.repeats)
            base = base or found["peak"]
            above = found["peak"] - base
            print(
                f"{way:18} {found['peak'] / MIB:6.1f} MiB, above a forward pass"
                f" {above / largest:6.2f} largest tensors or {above / 4 / objective.dim:5.2f}"
                f" vectors; ru_maxrss {found['maxrss'] / MIB:4.0f} MiB; {found['seconds']:5.2f} s"
            )
            if (
                shape in LIMITED
                and way.startswith(("in place", "mezo"))
                and above > LIMIT * largest
            ):
                missed.append(f"{shape}, {way}")
    if missed:
        sys.exit(f"above {LIMIT} times the largest tensor: {'; '.join(missed)}")


if __name__ == "__main__":
    main()

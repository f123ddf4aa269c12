"""What needs a GPU to be checked: bits, what crosses to the CPU, memory, speed, fractions on Ray.

    .venv/bin/python benchmarks/gpu.py                  # two minutes on a machine with a GPU
    .venv/bin/python benchmarks/gpu.py --device cpu     # a rehearsal: the same without one

Prints a table in Markdown, writes it to docs/results/gpu.md where there is a GPU (--out: elsewhere,
or of a rehearsal), and exits with 1 where a check fails. Without a GPU it says what was not run.
Times are medians of five after one that does not count; memory is torch's own peak.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedzo.estimation.in_place import InPlace
from fedzo.estimation.keys import Key
from fedzo.estimation.schemes import SCHEMES
from fedzo.finetuning.offloading import offload_
from fedzo.finetuning.zeroth_order import ZerothOrder
from fedzo.objectives.objective import ModuleObjective
from fedzo.runtime.device import DeviceEnvironment
from scenarios.runs import engines
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.simulate import simulate

DIM, CLIENTS, WIDTHS = 4096, 5, (784, 2048, 2048, 2048, 10)
STRATEGIES = ("fedavg", "fedzo", "seedzo", "scaffold_exact", "dshb", "fedamd", "monna", "fzoos")
LIMIT = 1.3
"""Of a step in place: peak memory above a forward pass, in largest tensors."""


@dataclass(frozen=True)
class Row:
    """One line of the table; missed: whether it is not as it should be."""

    what: str
    found: str
    missed: bool = False


class Crossings(TorchDispatchMode):
    """Counts the floating numbers that come from a device to the CPU, copies of DIM and more."""

    def __init__(self) -> None:
        super().__init__()
        self.down = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare torch the import of its compiler, for seconds, to keep it off this class."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> object:
        made = func(*args, **(kwargs or {}))
        ends = [t for t in (*args[:2], made) if isinstance(t, Tensor)]
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            comes = made.device.type == "cpu" and any(t.device.type != "cpu" for t in ends)
            if comes and made.is_floating_point() and made.numel() >= DIM:
                self.down += made.numel()
        return made


def bits(device: torch.device) -> Iterator[Row]:
    """Compare what a key draws here and there, far along a direction."""
    start, count = 1 << 33, 1 << 20
    words = [Key(seed=3).words(start, start + count, device=d) for d in ("cpu", device)]
    yield _equal("words of Philox", *words)
    for law in ("rademacher", "gaussian"):
        key = Key(seed=3, law=law)  # type: ignore[arg-type]
        yield _equal(law, *(key.draw(start, start + count, device=d) for d in ("cpu", device)))


def _equal(what: str, here: Tensor, there: Tensor) -> Row:
    apart = int((here.view(torch.int32) != there.cpu().view(torch.int32)).sum())
    return Row(f"{what}: numbers of {len(here):,} that differ", f"{apart:,}", apart > 0)


def crossings(device: torch.device) -> Iterator[Row]:
    """Count what comes back in two rounds, against what travels."""
    for strategy in STRATEGIES:
        with Crossings() as counted:
            result = simulate(_experiment(strategy), scenario=None)
        travels = sum(record.floats_up for record in result.last_records)
        known = strategy == "monna"  # its models are read where they are judged
        missed = counted.down > travels and not known
        yield Row(f"{strategy}: floats to the CPU / up", f"{counted.down:,} / {travels:,}", missed)


def _experiment(strategy: str, **more: Any) -> Experiment:
    return make_experiment(
        "quadratic",
        strategy,
        num_clients=CLIENTS,
        num_rounds=2,
        engine=more.pop("engine", "inprocess"),
        settings={"scenario.dim": DIM, **more},
    )


def speed(device: torch.device) -> Iterator[Row]:
    """Time rounds of a hundred networks here and there."""
    for strategy in ("fedavg", "fedzo"):
        seconds = {}
        for place in (torch.device("cpu"), device):
            _place_on(place)
            seconds[place.type] = _median(lambda s=strategy: simulate(_networks(s)), device)  # type: ignore[misc]
        _place_on(device)
        told = ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
        yield Row(f"{strategy}: five rounds of 100 networks", told)


def _networks(strategy: str) -> Experiment:
    return make_experiment(
        "classification",
        strategy,
        num_clients=100,
        num_rounds=5,
        settings={"scenario.dataset": "digits", "scenario.hidden": 64, "strategy.local_steps": 4},
    )


def in_place(device: torch.device) -> Iterator[Row]:
    """Compare a step on a module of 10^7 parameters with two forward passes."""
    objective = _module(device)
    largest = 4 * max(p.numel() for p in objective.module.parameters())

    def forward() -> None:
        with torch.no_grad():
            float(objective.own_value())

    def step() -> None:
        place = InPlace.of_module(objective)
        place.estimate([Key(seed=0)], SCHEMES["central"], 0.01).add_to_(place.place, -1e-3)

    ratio = _median(step, device) / (2 * _median(forward, device))
    yield Row(f"in place, {objective.dim:,} parameters: step / two forwards", f"{ratio:.2f}")
    if device.type == "cuda":
        above = (_peak(step) - _peak(forward)) / largest
        row = "in place: peak above a forward, in largest tensors"
        yield Row(row, f"{above:.2f}", above > LIMIT)
    yield from _offloaded(device, step)


def _offloaded(device: torch.device, resident: Callable[[], None]) -> Iterator[Row]:
    """Compare a step whose layers come to the device as they are called with one there."""
    here = _module(torch.device("cpu"))
    net, inputs, targets = here.module, here.inputs.to(device), here.targets.to(device)
    offload_(net, device)
    optimizer = ZerothOrder(net, lr=1e-3, method="zo_sgd")

    def step() -> None:
        optimizer.step(lambda: here.loss(net(inputs), targets))

    ratio = _median(step, device) / _median(resident, device)
    yield Row("layers from the CPU: step / one on the device", f"{ratio:.2f}")
    if device.type == "cuda":
        beside = torch.cuda.memory_allocated()
        above = (_peak(step) - beside) / (4 * max(p.numel() for p in net.parameters()))
        yield Row("layers from the CPU: peak on the device, in largest tensors", f"{above:.2f}")


def _module(device: torch.device) -> ModuleObjective:
    pairs = itertools.pairwise(WIDTHS)
    layers = [layer for k, n in pairs for layer in (nn.Linear(k, n), nn.ReLU())]
    net = nn.Sequential(*layers[:-1]).to(device)
    inputs = torch.linspace(-1, 1, 64 * WIDTHS[0], device=device).reshape(64, -1)
    targets = torch.arange(64, device=device) % 10
    return ModuleObjective(net, nn.functional.cross_entropy, inputs, targets)


def _peak(work: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def on_ray(device: torch.device) -> Iterator[Row]:
    """Compare four actors that share the device with one process."""
    share = 0.25 if device.type == "cuda" else 0.0
    here = simulate(_experiment("fedzo"))
    actors = {"engine.num_actors": 4, "engine.num_gpus": share, "engine.cluster_cpus": 4}
    chunk = {"engine.chunk_size": CLIENTS}  # single clients may round otherwise
    there = simulate(_experiment("fedzo", engine="ray", **actors, **chunk))
    far = float((here.x - there.x).abs().max())
    yield Row("Ray, four actors: largest difference of x to one process", f"{far:.1e}", far > 1e-9)


def _median(work: Callable[[], object], device: torch.device) -> float:
    """Return seconds of wall time, the median of five after one that does not count."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _place_on(device: torch.device) -> None:
    """Have the engine in this process work there, whatever its settings say."""
    engines.on_device = lambda world, _: DeviceEnvironment(world, device)


CHECKS = {
    "bits": bits,
    "crossings": crossings,
    "speed": speed,
    "in_place": in_place,
    "ray": on_ray,
}


RESULTS = Path(__file__).parents[1] / "docs/results/gpu.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--out", type=Path, help="Markdown file, docs/results/gpu.md with a GPU")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print(f"this process sees no GPU, so nothing was run of: {', '.join(chosen.only)}")
        return
    torch.set_num_threads(1)
    device = torch.device(chosen.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "a rehearsal on the CPU"
    head = f"{name}, torch {torch.__version__}\n\n| check | found |\n|---|---|"
    print(head)
    _place_on(device)
    rows = []
    lines = [f"# On a GPU\n\n`benchmarks/gpu.py`, {date.today()}: {head}"]
    for check in chosen.only:
        for row in CHECKS[check](device):
            lines.append(f"| {row.what} | {row.found}{' (missed)' if row.missed else ''} |")
            print(lines[-1], flush=True)
            rows.append(row)
    out = chosen.out or (RESULTS if device.type == "cuda" else None)
    if out:
        out.write_text("\n".join(lines) + "\n")
        print(f"\nwritten: {out}")
    if any(row.missed for row in rows):
        sys.exit(f"missed: {'; '.join(row.what for row in rows if row.missed)}")


if __name__ == "__main__":
    main()

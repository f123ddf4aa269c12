"""What a checkpoint costs a round: bytes written and CPU, where few of many clients change.

SCAFFOLD on the quadratic, 200 clients of whom 10 are asked a round, d = 10,000, a checkpoint after
every round: the control variates are 16 MB with the server and 16 MB with the clients. Bytes are
those of files that are new after a round; CPU is that of the process inside RunDirectory.add, and
its share in a round. Run `python benchmarks/checkpoints.py [rounds]`; one line of JSON a strategy.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import scenarios.runs.rundir
from scenarios.runs.experiment import make_experiment
from scenarios.runs.rundir import RunDirectory
from scenarios.runs.simulate import simulate

CLIENTS, COHORT, DIM = 200, 10, 10_000
STRATEGIES = {
    "scaffold_exact": {"strategy.local_steps": 1},
    "scaffold2": {"strategy.local_steps": 1, "client.num_directions": 2},
}


@dataclass
class Meter:
    """Measures every call of RunDirectory.add."""

    bytes_written: list[int] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def around(self, add: Any) -> Any:
        """Return `add`, measured."""

        def measured(directory: RunDirectory, *args: Any) -> None:
            began = time.process_time()
            add(directory, *args)
            self.ends.append(time.process_time())
            self.cpu_s.append(self.ends[-1] - began)
            self.bytes_written.append(self._fresh((directory.path / "checkpoint").iterdir()))

        return measured

    def _fresh(self, paths: Iterable[Path]) -> int:
        found = {(s.st_ino, s.st_mtime_ns): s.st_size for s in (path.stat() for path in paths)}
        total = sum(size for key, size in found.items() if key not in self._seen)
        self._seen |= found.keys()
        return total


def measure(strategy: str, num_rounds: int) -> dict[str, object]:
    """Run a strategy and return its medians and means over the second half of the rounds."""
    settings = {"scenario.dim": DIM, "strategy.participation": COHORT / CLIENTS}
    experiment = make_experiment(
        "quadratic",
        strategy,
        num_rounds=num_rounds,
        num_clients=CLIENTS,
        settings={**settings, **STRATEGIES[strategy]},
    )
    add, meter = RunDirectory.add, Meter()
    RunDirectory.add = meter.around(add)  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            simulate(experiment, out=Path(folder) / "run")
    finally:
        RunDirectory.add = add  # type: ignore[method-assign]
    half = num_rounds // 2
    rounds = [b - a for a, b in zip(meter.ends[half:-1], meter.ends[half + 1 :], strict=True)]
    return {
        "strategy": strategy,
        "MB a round, median": round(statistics.median(meter.bytes_written[half:]) / 1e6, 3),
        "MB a round, mean": round(statistics.mean(meter.bytes_written[half:]) / 1e6, 3),
        "MB a round, most": round(max(meter.bytes_written[half:]) / 1e6, 3),
        "CPU ms a checkpoint, median": round(1e3 * statistics.median(meter.cpu_s[half:]), 1),
        "CPU ms a checkpoint, mean": round(1e3 * statistics.mean(meter.cpu_s[half:]), 1),
        "CPU ms a round, mean": round(1e3 * statistics.mean(rounds), 1),
    }


def main() -> None:
    """Print one line of JSON a strategy."""
    num_rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    scenarios.runs.rundir.CHECKPOINT_EVERY_S = 0.0
    for strategy in STRATEGIES:
        print(json.dumps(measure(strategy, num_rounds)), flush=True)


if __name__ == "__main__":
    main()

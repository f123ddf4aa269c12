"""What a run gave, and what is said of it in a line of JSON."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fedzo.parts import find_part
from fedzo.records.history import RoundRecord
from scenarios.runs.experiment import Experiment
from strategies.core.driver import StopReason
from strategies.core.privacy_config import PrivacyConfig
from strategies.core.spending import Spent
from strategies.core.uncovered import claim


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run gave: all records, the last x of every problem, and where it was written.

    `stops` says why each problem ended, of those that this call has run. `spent` is what a private
    strategy has released to the clients in the whole run.
    """

    experiment: Experiment
    records: Sequence[RoundRecord]
    solutions: Sequence[Float[Tensor, " d"]]
    metrics: Mapping[str, float]
    stops: Sequence[StopReason]
    out: Path | None
    spent: Spent | None = None

    @property
    def x(self) -> Float[Tensor, " d"]:
        """The last x of the first problem."""
        return self.solutions[0]

    @property
    def last_records(self) -> list[RoundRecord]:
        """The last record of every problem."""
        return list({record.problem: record for record in self.records}.values())

    @property
    def initial_value(self) -> float | None:
        """F at the start, averaged over problems."""
        return self._mean(lambda values: values[0])

    @property
    def final_value(self) -> float | None:
        """F at the end, averaged over problems."""
        return self._mean(lambda values: values[-1])

    @property
    def best_value(self) -> float | None:
        """The lowest F that all judges have answered, averaged over problems."""
        return self._mean(min, whole=True)

    @property
    def queries(self) -> int:
        """All queries of all clients for all problems."""
        return self._sum("queries")

    @property
    def epsilon(self) -> float | None:
        """Privacy spent by all releases of the run; None without any, or without noise."""
        told = [record.epsilon_run for record in self.last_records]
        found = [epsilon for epsilon in told if epsilon is not None]
        return max(found) if found and math.isfinite(max(found)) else None

    @property
    def privacy(self) -> dict[str, Any] | None:
        """What is claimed, and what it rests on; None where nothing is."""
        judged = any(record.value is not None for record in self.records)
        config = find_part(self.experiment.config("strategy"), PrivacyConfig)
        if self.epsilon is None or config is None:
            return None
        return claim(config, self.epsilon, judged=judged)

    def summary(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        experiment = self.experiment
        return {
            "scenario": experiment.scenario,
            "strategy": experiment.strategy,
            "engine": experiment.engine,
            "seed": experiment.seed,
            "rounds": self._sum("round_index"),
            "initial_value": self.initial_value,
            "final_value": self.final_value,
            "best_value": self.best_value,
            "metrics": dict(self.metrics),
            "queries": self.queries,
            "gradients": self._sum("gradients"),
            "examples": self._sum("examples"),
            "floats_up": self._sum("floats_up"),
            "floats_down": self._sum("floats_down"),
            "bytes_up": self._sum("bytes_up"),
            "bytes_down": self._sum("bytes_down"),
            "wall_s": sum(record.wall_s for record in self.last_records),
            "epsilon": self.epsilon,
            "privacy": self.privacy,
            "stops": list(self.stops),
            "clients_failed": sum(len(record.failures) for record in self.records),
            "out": None if self.out is None else str(self.out),
        }

    def _sum(self, name: str) -> int:
        return sum(getattr(record, name) for record in self.last_records)

    def _mean(self, pick: Callable[[list[float]], float], *, whole: bool = False) -> float | None:
        by_problem: dict[int, list[float]] = {}
        for record in self.records:
            value = record.whole_value if whole else record.value
            if value is not None:
                by_problem.setdefault(record.problem, []).append(value)
        picked = [pick(values) for values in by_problem.values()]
        return sum(picked) / len(picked) if picked else None

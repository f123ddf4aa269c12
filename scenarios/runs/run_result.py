"""What a run gave, and what is said of it in a line of JSON."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from fedzo.errors import ConfigError, RunError
from fedzo.estimation.replay import Replay
from fedzo.objectives.modules import restore_parameters
from fedzo.parts import find_part
from fedzo.protocol.questions.in_place import InPlaceConfig
from fedzo.records.facts import Fact, ShownByFacts
from fedzo.records.history import RoundRecord
from fedzo.records.virtual_time import VirtualTime
from scenarios.runs.best import Best, Solution
from scenarios.runs.experiment import Experiment
from scenarios.runs.judged import is_known
from scenarios.runs.result_rows import Row, number, virtual_rows
from strategies.core.driver import StopReason
from strategies.core.privacy_config import PrivacyConfig
from strategies.core.spending import Spent
from strategies.core.uncovered import claim

RESULT = "result.json"
_SUMS = ("gradients", "examples", "floats_up", "floats_down", "bytes_up", "bytes_down")
ERROR = "error.txt"
"""What a run leaves that has failed: why."""
_NOISE = {"os": "of the operating system's entropy", "simulated": "simulated, from the seed"}


@dataclass(frozen=True, slots=True, repr=False)
class RunResult(ShownByFacts):
    """What a run gave: all records, the last x of every problem, and where it was written.

    In place, there is a log of coefficients for an x (see `replay_`). `stops` says why each problem
    ended, as far as the checkpoint knows. `spent` is what a private strategy has released to the
    clients in the whole run. `bests`: of every problem, where F was lowest, None where nobody
    judged. start: a digest of the modules' parameters before the first round, in place.
    """

    experiment: Experiment
    records: Sequence[RoundRecord]
    solutions: Sequence[Solution]
    metrics: Mapping[str, float]
    stops: Sequence[StopReason]
    out: Path | None
    spent: Spent | None = None
    bests: Sequence[Best | None] = ()
    start: str = ""

    def heading(self) -> str:
        made = self.experiment
        return f"{made.scenario} / {made.strategy}, {made.num_clients} clients, seed {made.seed}"

    def facts(self) -> Sequence[Fact]:
        return rows_of(self)

    @property
    def x(self) -> Float[Tensor, " d"]:
        """The last x of the first problem.

        Raises RunError where it is in the clients' modules: `replay_` writes it into another.
        """
        if self._replay is not None:
            raise RunError(
                "x is in the clients' modules and no vector; result.replay_(module) moves a module"
                " from where they started to where they are"
            )
        return self.solutions[0]

    @property
    def best_round(self) -> int | None:
        """The round after which F of the first problem was lowest; None where nobody judged x.

        F as `best_value` takes it: judged by as many clients as must (strategy.min_judges).
        """
        return self.bests[0].round_index if self.bests and self.bests[0] else None

    @property
    def best_x(self) -> Float[Tensor, " d"]:
        """The x of the first problem after `best_round`.

        Raises RunError where nobody judged x, where x is in the clients' modules, and where a
        version of fedzo that kept no best x has run that round.
        """
        if self._replay is not None:
            raise RunError(
                "x is in the clients' modules and no vector; result.load_into(module, best=True)"
                " moves a module to the best one"
            )
        return self._best_position()

    def _best_position(self) -> Solution:
        best = self.bests[0] if self.bests else None
        if best is None:
            raise RunError(
                "no x of this run was judged, so none is the best; take result.x, or judge with"
                " strategy.evaluate_every=1"
            )
        if best.x is None:
            raise RunError(
                f"the best x is that of round {best.round_index}, which was run by a version of"
                " fedzo that did not keep it; take result.x, or run again"
            )
        return best.x

    def load_into(self, module: nn.Module, *, best: bool = False) -> None:
        """Write x of the first problem, or the best one, into a module's trained parameters.

        Where x was moved in place, the module must be made as the clients' were, and holds the
        first position on the way that it is asked for: a later one can follow, an earlier cannot.
        Raises ConfigError for a module of another size, made otherwise or moved by another run,
        RunError where there is no best x.
        """
        if not isinstance(module, nn.Module):
            raise ConfigError(f"module={module!r:.60} is no torch module")
        if self._replay is not None:
            self._replay.bring_(module, self._best_position() if best else self.solutions[0])
            return
        restore_parameters(module, self._best_position() if best else self.solutions[0])

    def replay_(self, module: nn.Module) -> None:
        """Move a module, made as the clients', to where a run in place has ended.

        Raises ConfigError for a module made otherwise or moved by another run, RunError for a run
        whose x is a vector: fedzo.objectives.objective.restore_parameters writes that.
        """
        if self._replay is None:
            raise RunError("x is a vector; restore_parameters(module, result.x) writes it")
        self._replay.bring_(module, self.solutions[0])

    @property
    def in_place(self) -> bool:
        """Whether x is in the clients' modules and no vector."""
        return self._replay is not None

    @property
    def _replay(self) -> Replay | None:
        """How the first problem's log is replayed; None where x is a vector."""
        config = self.experiment.config("client")
        if not isinstance(config, InPlaceConfig):
            return None
        return replace(config.replay(self.experiment.seed, 0), start=self.start)

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
        """F at the end, averaged over problems; None where nobody could judge x there."""
        return self._mean(lambda values: values[-1]) if self.knows_value() else None

    @property
    def partial(self) -> bool:
        """Whether the last F of some problem is the mean over too few clients."""
        return any(record.partial for record in self.last_records)

    def knows_value(self, axis: str = "rounds", limit: float = math.inf) -> bool:
        """Return whether F is known where x was to be judged last, up to a limit on an axis."""
        every = int(self.experiment.settings.get("strategy.evaluate_every", 1))
        return is_known(self.records, every, len(self.stops), axis, limit)

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
    def virtual(self) -> VirtualTime | None:
        """What the run would have taken on its fleet, all problems together; None without one."""
        times = [record.virtual for record in self.last_records if record.virtual is not None]
        return sum(times[1:], times[0]) if times else None

    @property
    def participation_bias(self) -> float | None:
        """Below 0 where slow devices were heard less (scenarios.runs.participation)."""
        from scenarios.runs.participation import participation_bias

        return participation_bias(self.experiment, self.records)

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
            "partial": self.partial,
            "best_value": self.best_value,
            "best_rounds": [best and best.round_index for best in self.bests],
            "metrics": dict(self.metrics),
            "queries": self.queries,
            **{name: self._sum(name) for name in _SUMS},
            "wall_s": sum(record.wall_s for record in self.last_records),
            "virtual_s": self.virtual and self.virtual.seconds,
            "wasted": self.virtual and self.virtual.wasted,
            **{n: getattr(self, n) for n in ("participation_bias", "epsilon", "privacy")},
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


def rows_of(result: RunResult) -> list[Row]:
    """Return what is known of a run, in the order in which it is shown."""
    summary = result.summary()
    ends = ", ".join(f"{why} ({count})" for why, count in Counter(result.stops).items())
    return [
        ("objective", f"{number(summary['initial_value'])} -> {number(summary['final_value'])}"),
        ("best", number(summary["best_value"])),
        *_judges(result),
        *((name.replace("_", " "), number(value)) for name, value in result.metrics.items()),
        ("rounds", f"{summary['rounds']:,}"),
        ("queries", f"{summary['queries']:,}"),
        *((n, f"{summary[n]:,}") for n in ("gradients", "examples") if summary[n]),
        ("floats up / down", f"{summary['floats_up']:,} / {summary['floats_down']:,}"),
        ("bytes up / down", f"{summary['bytes_up']:,} / {summary['bytes_down']:,}"),
        *_privacy(result, summary),
        ("seconds", f"{summary['wall_s']:.2f}"),
        *virtual_rows(result.virtual, summary["participation_bias"]),
        ("ended by", ends or "-"),
    ]


def _judges(result: RunResult) -> Iterator[Row]:
    """Say whose values F is the mean of, where those are not all."""
    experiment = result.experiment
    sample = sampled_judges(experiment)
    if sample:
        yield "judged by", f"samples of {sample} of {experiment.num_clients} clients"
    known = [record.round_index for record in result.records if record.value is not None]
    if known and not result.knows_value():
        yield "judged last", f"after round {max(known):,}; nobody could judge x since"
    partial = [record.judges for record in result.last_records if record.partial]
    if partial:
        yield "judged by", f"{min(partial)} of {experiment.num_clients} clients (partial)"


def sampled_judges(experiment: Experiment) -> int:
    """Return how many clients are asked for F; 0 is all, and a method without settings asks all."""
    return int(experiment.settings.get("strategy.judges", 0))


def _privacy(result: RunResult, summary: dict[str, Any]) -> Iterator[Row]:
    if summary["epsilon"] is not None:
        delta = result.experiment.settings["strategy.delta"]
        yield "epsilon", f"{summary['epsilon']:.4g} (delta {delta:g})"
    if summary["privacy"] is not None:
        yield "noise", _NOISE[summary["privacy"]["noise"]]
        yield "objective and metrics", summary["privacy"]["judged"]

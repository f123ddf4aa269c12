"""What a run will ask and send, found by a rehearsal: the strategy runs, and nobody is asked.

Clients answer random numbers of the shapes that each question allows, at the costs that it says of
itself. So queries, gradients and floats are those of a run in which everybody answers; bytes are
about right, and what depends on answers (a budget, an early end, faults) is not in them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch

from clients.core.local import require_examples
from fedzo.compression.config import CompressionConfig
from fedzo.fleet.config import FleetConfig
from fedzo.fleet.devices import Fleet
from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.question import take_apart
from fedzo.protocol.questions.private import Records
from fedzo.randomness import stream
from fedzo.records.history import RoundRecord
from fedzo.runtime.engine import Engine
from fedzo.runtime.feedback import pack_replies
from fedzo.runtime.middleware.clocked import Clocked
from fedzo.runtime.middleware.compressing import Compressing
from scenarios.problems.scenario import Scenario
from scenarios.runs.experiment import Experiment, build_strategy
from scenarios.runs.steps import posed
from strategies.core.driver import RunSettings, Snapshot, run_rounds

COUNTED = ("queries", "gradients", "floats_up", "floats_down", "bytes_up", "bytes_down")
LONGEST_S = 2.0
_COUNTS = ("queries", "gradients", "examples", "non_finite")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a round takes, and a run: all rounds of all problems, judging included, by COUNTED.

    rounds: how many were rehearsed; the rest is taken to be as their mean.
    """

    rounds: int
    problems: int
    a_round: Mapping[str, float]
    a_run: Mapping[str, float]

    def within(self, query_budget: int | None) -> Mapping[str, float]:
        """Return what a run takes that ends where its budget for each problem is spent."""
        most, wanted = self.problems * (query_budget or 0), self.a_run["queries"]
        share = most / wanted if query_budget is not None and wanted > most else 1.0
        return {name: share * number for name, number in self.a_run.items()}


def rehearsed(experiment: Experiment, scenario: Scenario) -> Estimate:
    """Rehearse the first rounds of an experiment, for two seconds at most."""
    begun, problem = time.perf_counter(), posed(scenario, 0, experiment)
    settings = RunSettings(
        num_clients=experiment.num_clients,
        num_rounds=experiment.num_rounds,
        seed=experiment.seed,
        num_problems=scenario.num_problems,
        public_data=not experiment.own_data,
    )

    def enough(_: Snapshot) -> bool:
        return time.perf_counter() - begun > LONGEST_S

    size = int(experiment.settings.get("client.batch_size", 0))
    if size:
        require_examples(scenario.cohort([0], 0), size)
    engine: Engine = _Rehearsal(experiment.seed, scenario)
    compression: CompressionConfig = experiment.config("compression")
    up, down = compression.up_scheme, compression.down_scheme
    if up is not None or down is not None:
        engine = Compressing(engine, up=up, down=down)
    fleet: FleetConfig = experiment.config("fleet")
    strategy = build_strategy(experiment)
    if fleet.any or strategy.asks_in_waves:  # whose answer comes first says who is asked next
        fleet = fleet if fleet.any else FleetConfig(preset="silo", query_s=1e-6)
        here = replace(fleet, drop_out=0.0, online=1.0, diurnal=0.0, correlation=0.0)
        here = replace(here, query_s=fleet.query_s or 1.0)  # examples are not known here
        engine = Clocked(engine, Fleet(here, seed=experiment.seed))
    found = run_rounds(strategy, engine, problem, settings, callbacks=[enough])
    return _estimate(found.records, experiment.num_rounds, scenario.num_problems)


def _estimate(records: Sequence[RoundRecord], planned: int, problems: int) -> Estimate:
    first, last = records[0], records[-1]
    rounds = last.round_index
    start = {name: getattr(first, name) for name in COUNTED}
    spent = {name: getattr(last, name) - start[name] for name in COUNTED}
    mean = {name: number / max(1, rounds) for name, number in spent.items()}
    whole = {name: problems * (start[name] + planned * mean[name]) for name in COUNTED}
    return Estimate(rounds, problems, mean, whole)


class _Rehearsal:
    """An engine without clients; how many records each has is read off their objectives."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self._drawn, self._scenario = stream(seed, "rehearsal"), scenario

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        return [self._replies(exchange) for exchange in exchanges]

    def client_states(self) -> Mapping[int, ClientState]:
        return {}

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        """Keep nothing: nobody is there."""

    def close(self) -> None:
        """Give back nothing."""

    def _replies(self, exchange: Exchange) -> Replies:
        question, ids = exchange.question, list(exchange.client_ids)
        shapes = {name: max(allowed, key=prod) for name, allowed in question.shapes().items()}
        cost = question.cost()
        numbers = dict.fromkeys(_COUNTS, 0) | {
            "queries": cost.queries,
            "gradients": cost.gradients,
        }
        kind = _kind(exchange)
        drawn = {name: self._drawn.standard_normal((len(ids), *s)) for name, s in shapes.items()}
        counts = {name: dict.fromkeys(ids, number) for name, number in numbers.items()}
        if isinstance(question, Records):  # of which the noise of privacy is made
            cohort = self._scenario.cohort(ids, exchange.moment.problem)
            if hasattr(cohort, "sizes"):
                counts["num_examples"] = dict(zip(ids, cohort.sizes.tolist(), strict=True))
        replies = Replies(
            client_ids=ids,
            tensors={name: torch.from_numpy(each).to(kind) for name, each in drawn.items()},
            counts=counts,
        )
        if exchange.up is None:
            return replies
        return pack_replies(exchange, replies, [{} for _ in ids])[0]


def _kind(exchange: Exchange) -> torch.dtype:
    """Return the type of the widest tensor of a question, which answers mostly have too."""
    parts = take_apart(exchange.question)
    told = [t for t in (*parts.shared.values(), *parts.own.values()) if t.is_floating_point()]
    return max(told, key=torch.Tensor.numel).dtype if told else torch.float64

"""What a run will ask and send, found by a rehearsal: the strategy runs, and nobody is asked.

Clients answer random numbers of the shapes that each question allows, at the costs that it says of
itself, and count their examples where they have some. So all counts are those of a run in which
everybody answers; what depends on answers (a budget, an early end, faults) is not in them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch

from clients.core.local import require_examples
from fedzo.compression.config import CompressionConfig
from fedzo.fleet.config import FleetConfig
from fedzo.fleet.devices import Fleet
from fedzo.objectives.problem import OpenProblem, PlacedProblem
from fedzo.privacy.averages import queries_to_compare
from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.question import Question, take_apart
from fedzo.protocol.questions.in_place import InPlaceQuestion
from fedzo.protocol.questions.private import Clipped
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
_DOUBLE = ("values", "sums", "records", "shortened")
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
    if isinstance(problem, OpenProblem | PlacedProblem):
        problem = replace(problem, measure=None)  # a function of the user's, not to be asked
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
    engine: Engine = _Rehearsal(experiment.seed, scenario, problem.initial_x.dtype)
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

    def __init__(self, seed: int, scenario: Scenario, usual: torch.dtype) -> None:
        self._drawn, self._scenario, self._usual = stream(seed, "rehearsal"), scenario, usual
        self._sizes: dict[tuple[int, int], int] = {}

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
            "queries": cost.queries + self._compared(question, ids, exchange.moment.problem),
            "gradients": cost.gradients,
        }
        drawn = {name: self._drawn.standard_normal((len(ids), *s)) for name, s in shapes.items()}
        counts = {name: dict.fromkeys(ids, number) for name, number in numbers.items()}
        if sizes := self._sizes_of(ids, exchange.moment.problem):
            counts["num_examples"] = {c: sizes[c] for c in ids}
        replies = Replies(
            client_ids=ids,
            tensors={
                name: torch.from_numpy(each).to(_kind(exchange, name, self._usual))
                for name, each in drawn.items()
            },
            counts=counts,
        )
        if exchange.up is None:
            return replies
        return pack_replies(exchange, replies, [{} for _ in ids])[0]

    def _sizes_of(self, ids: Sequence[int], problem: int) -> Mapping[int, int]:
        """Return how many examples clients have, where they have some: who weighs asks that."""
        unknown = [client for client in ids if (problem, client) not in self._sizes]
        if unknown:
            cohort = self._scenario.cohort(unknown, problem)
            found = cohort.sizes.tolist() if hasattr(cohort, "sizes") else [0] * len(unknown)
            self._sizes |= {(problem, c): n for c, n in zip(unknown, found, strict=True)}
        known = {client: self._sizes[problem, client] for client in ids}
        return known if any(known.values()) else {}

    def _compared(self, question: Question[Any], ids: Sequence[int], problem: int) -> int:
        """Return the queries of comparing losses of records, which only clients can tell."""
        if not (isinstance(question, Clipped) and question.compare):
            return 0
        return queries_to_compare(self._scenario.cohort(ids, problem))


def _kind(exchange: Exchange, name: str, usual: torch.dtype) -> torch.dtype:
    """Return the type of an answer's tensor: that of the widest one of the question, mostly.

    usual: that of x, where a question has no such tensor. Values are in double precision, and so is
    all that is made of them where x stays with the clients.
    """
    if name in _DOUBLE or isinstance(exchange.question, InPlaceQuestion):
        return torch.float64
    parts = take_apart(exchange.question)
    told = [t for t in (*parts.shared.values(), *parts.own.values()) if t.is_floating_point()]
    return max(told, key=torch.Tensor.numel).dtype if told else usual

"""What happens where the objectives are: one rule, run on a cohort.

The in-process engine calls `serve` with many clients, a deployed SuperNode with one; there is no
second code path.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedzo.cohort import CohortObjective, cohort_of, flip_labels
from fedzo.config import take_config
from fedzo.errors import ConfigError
from fedzo.exchange import ClientState, Exchange, Replies, join_replies
from fedzo.failure import failure_of
from fedzo.objective import Objective
from fedzo.oracle import BoundsPolicy, NonFinitePolicy, Oracle
from fedzo.randomness import streams

Rule = Callable[
    [Exchange, Oracle, Sequence[ClientState]], tuple[dict[str, Tensor], Sequence[ClientState]]
]
"""A local rule: (exchange, oracle, states) -> (reply tensors [n, ...], next states)."""


@runtime_checkable
class Environment(Protocol):
    """The clients' world: who has which objective."""

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise that the clients' oracles add."""
        ...

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        """Return the objectives of these clients; a new object at each call."""
        ...


@dataclass(frozen=True, slots=True)
class FunctionEnvironment:
    """An environment made of a function client id -> objective, called at each exchange."""

    make_objective: Callable[[int], Objective]
    noise_std: float = 0.0

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        return cohort_of([self.make_objective(client) for client in client_ids])


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleSettings:
    """The part of an exchange's config that concerns the oracle; query_budget < 0 is no limit."""

    seed: int = 0
    round_index: int = 0
    exchange_index: int = 0
    problem: int = 0
    query_budget: int = -1
    non_finite: NonFinitePolicy = "fail"
    out_of_bounds: BoundsPolicy = "clip"


def serve(
    exchange: Exchange,
    environment: Environment,
    rules: Mapping[str, Rule],
    states: Sequence[ClientState],
) -> tuple[Replies, Sequence[ClientState]]:
    """Answer an exchange for its clients; what a client's code raises becomes its failure."""
    ids = exchange.client_ids
    if exchange.kind not in rules:
        reason = f"no rule answers {exchange.kind!r}; this client knows {', '.join(sorted(rules))}"
        return _all_failed(ids, reason), states
    problem = exchange.config.get("problem", 0)
    try:
        cohort = environment.cohort(ids, int(problem))
        if exchange.config.get("flip_labels"):
            cohort = flip_labels(cohort)
    except ConfigError:  # the experiment is wrong, not the client
        raise
    except BaseException as error:  # a client's set-up may raise anything; nothing was asked yet
        reason = failure_of(error)
        if len(ids) > 1:
            return _serve_one_by_one(exchange, environment, rules, states)
        return _all_failed(ids, reason), states
    oracle = _make_oracle(cohort, exchange, environment.noise_std)
    try:
        tensors, after = rules[exchange.kind](exchange, oracle, states)
    except ConfigError:
        raise
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        if len(ids) > 1:
            return _serve_one_by_one(exchange, environment, rules, states)
        return _all_failed(ids, f"out of memory: {error}"), states
    except BaseException as error:  # the rule or a stacked objective failed for all of them
        failed = _all_failed(ids, failure_of(error))
        return Replies(client_ids=[], failures=failed.failures, counts=_counts(oracle, ids)), states
    replies = Replies(client_ids=ids, tensors=tensors, counts=_counts(oracle, ids))
    if not oracle.failures:
        return replies, after
    kept = [states[i] if i in oracle.failures else state for i, state in enumerate(after)]
    return replies.without({ids[p]: reason for p, reason in oracle.failures.items()}), kept


def _make_oracle(cohort: CohortObjective, exchange: Exchange, noise_std: float) -> Oracle:
    settings = take_config(OracleSettings, exchange.config)
    where = ("noise", settings.problem, settings.round_index, settings.exchange_index)
    noise = streams(settings.seed, *where, clients=exchange.client_ids) if noise_std > 0 else ()
    return Oracle(
        cohort,
        query_budget=None if settings.query_budget < 0 else settings.query_budget,
        noise_std=noise_std,
        noise_generators=noise,
        non_finite=settings.non_finite,
        out_of_bounds=settings.out_of_bounds,
        may_skip="non_finite" in exchange.config,
    )


def _counts(oracle: Oracle, ids: Sequence[int]) -> dict[str, dict[int, int]]:
    counts = oracle.counts()
    if hasattr(oracle.cohort, "sizes"):
        counts["num_examples"] = oracle.cohort.sizes.tolist()
    return {name: dict(zip(ids, numbers, strict=True)) for name, numbers in counts.items()}


def _all_failed(ids: Sequence[int], reason: str) -> Replies:
    return Replies(client_ids=[], failures=dict.fromkeys(ids, reason))


def _serve_one_by_one(
    exchange: Exchange,
    environment: Environment,
    rules: Mapping[str, Rule],
    states: Sequence[ClientState],
) -> tuple[Replies, Sequence[ClientState]]:
    parts, after = [], []
    for position, state in enumerate(states):
        replies, (next_state,) = serve(exchange.select([position]), environment, rules, [state])
        parts.append(replies)
        after.append(next_state)
    return join_replies(parts), after

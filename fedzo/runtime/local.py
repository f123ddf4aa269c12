"""What happens where the objectives are: one rule, run on a cohort.

The in-process engine calls `serve` with many clients, a deployed SuperNode with one; there is no
second code path.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.failure import failure_of
from fedzo.objectives.cohort import CohortObjective, cohort_of, flip_labels
from fedzo.objectives.objective import Objective
from fedzo.objectives.oracle import Oracle
from fedzo.protocol.exchange import ClientState, Exchange, Moment, Replies, join_replies
from fedzo.protocol.packing import is_wire, split_state
from fedzo.protocol.question import Answer, Question
from fedzo.runtime.feedback import pack_replies

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Clients:
    """The cohort that answers: who, their oracle, what they remember, the key of their streams.

    device: where questions, states and objectives are.
    """

    ids: Sequence[int]
    oracle: Oracle
    states: Sequence[ClientState]
    seed: int = 0
    moment: Moment = Moment()
    device: torch.device = CPU

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def cohort(self) -> CohortObjective:
        """Their objectives; whatever is asked of them must be asked through the oracle."""
        return self.oracle.cohort

    def at(self, x: Float[Tensor, "*q d"]) -> Float[Tensor, "n *q d"]:
        """Return a tensor that all have been told once for every client."""
        return x.expand(len(self.ids), *x.shape)

    def streams(self, purpose: str) -> Sequence[np.random.Generator]:
        """Return each client's generator for a purpose in this exchange."""
        return self.moment.streams(self.seed, purpose, self.ids)


Answered = tuple[Answer, Sequence[ClientState]]
"""What a rule returns: the answer of all its clients, and their next states."""
Rule = Callable[[Any, Clients], Answered]
"""A local rule: (question, clients) -> (answer, next states)."""
Rules = Mapping[type[Question[Any]], Rule]
"""Who answers what."""


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


def serve(
    exchange: Exchange,
    environment: Environment,
    rules: Rules,
    states: Sequence[ClientState],
    *,
    pool: Executor | None = None,
) -> tuple[Replies, Sequence[ClientState]]:
    """Answer an exchange for its clients; what a client's code raises becomes its failure.

    Where the environment has a `device`, question and states are taken there, states stay there,
    and replies come back. pool: who asks objectives of several clients at a time; None asks one
    after the other.
    """
    rules_own = [split_state(state)[0] if is_wire(state) else state for state in states]
    device = getattr(environment, "device", CPU)
    if device == CPU:
        replies, after = _serve(exchange, environment, rules, rules_own, pool)
        return _wired(exchange, replies, states, rules_own, after)
    placed = replace(exchange, question=exchange.question.to(device))
    here = [{name: tensor.to(device) for name, tensor in state.items()} for state in rules_own]
    replies, after = _serve(placed, environment, rules, here, pool)
    replies, after = _wired(exchange, replies, states, here, after)
    told = {name: tensor.cpu() for name, tensor in replies.tensors.items()}
    return replace(replies, tensors=told), after


def _wired(
    exchange: Exchange,
    replies: Replies,
    states: Sequence[ClientState],
    before: Sequence[ClientState],
    after: Sequence[ClientState],
) -> tuple[Replies, Sequence[ClientState]]:
    """Return the replies packed, where that is wanted, and states with what the wire remembers.

    states: with that; before, after: what rules remembered before and do now.
    """
    if exchange.up is None and not any(map(is_wire, states)):
        return replies, after
    wire = [split_state(state)[1] for state in states]
    kept: Sequence[ClientState] = wire
    if exchange.up is not None:
        replies, kept = pack_replies(exchange, replies, wire)
    together = zip(after, before, kept, wire, strict=True)
    same = [new is old and known is was for new, old, known, was in together]
    return replies, [
        state if unchanged else {**new, **known}
        for state, new, known, unchanged in zip(states, after, kept, same, strict=True)
    ]


def _serve(
    exchange: Exchange,
    environment: Environment,
    rules: Rules,
    states: Sequence[ClientState],
    pool: Executor | None = None,
) -> tuple[Replies, Sequence[ClientState]]:
    ids, device = exchange.client_ids, getattr(environment, "device", CPU)
    if type(exchange.question) not in rules:
        known = ", ".join(sorted(question.kind for question in rules))
        reason = f"no rule answers {exchange.kind!r}; this client knows {known}"
        return _all_failed(ids, reason), states
    shared = exchange.question.works_on(ids)
    asked, owners = (ids, range(len(ids))) if shared is None else (shared.clients, shared.owners)
    try:
        cohort = environment.cohort(asked, exchange.moment.problem)
        if exchange.poisoned:
            cohort = flip_labels(cohort)
    except ConfigError:  # the experiment is wrong, not the client
        raise
    except BaseException as error:  # a client's set-up may raise anything; nothing was asked yet
        reason = failure_of(error)
        if len(ids) > 1:
            return _serve_one_by_one(exchange, environment, rules, states)
        return _all_failed(ids, reason), states
    oracle = _make_oracle(cohort, exchange, environment.noise_std, pool)
    try:
        clients = Clients(ids, oracle, states, exchange.seed, exchange.moment, device)
        answer, after = rules[type(exchange.question)](exchange.question, clients)
    except ConfigError:
        raise
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        if len(ids) > 1:
            return _serve_one_by_one(exchange, environment, rules, states)
        return _all_failed(ids, f"out of memory: {error}"), states
    except BaseException as error:  # the rule or a stacked objective failed for all of them
        counts = _counts(oracle, ids, owners)
        return replace(_all_failed(ids, failure_of(error)), counts=counts), states
    counts = _counts(oracle, ids, owners)
    replies = Replies(client_ids=ids, tensors=answer.tensors(), counts=counts)
    failures = {**oracle.unheard, **oracle.failures}
    failed_at = {owners[p]: reason for p, reason in sorted(failures.items())}
    if failed_at:
        after = [states[i] if i in failed_at else state for i, state in enumerate(after)]
    return replies.without({ids[i]: reason for i, reason in failed_at.items()}), after


def _make_oracle(
    cohort: CohortObjective, exchange: Exchange, noise_std: float, pool: Executor | None
) -> Oracle:
    noise: Sequence[np.random.Generator] = ()
    if noise_std > 0:
        noise = exchange.moment.streams(exchange.seed, "noise", exchange.client_ids)
    policies, leaves_out = exchange.question.policies, exchange.on_failure == "skip"
    return Oracle(
        cohort,
        query_budget=exchange.budget,
        noise_std=noise_std,
        noise_generators=noise,
        non_finite=policies.non_finite,
        out_of_bounds=policies.out_of_bounds,
        may_skip=policies.can_skip,
        on_failure="fail" if leaves_out and not policies.can_skip else exchange.on_failure,
        pool=pool,
    )


def _counts(oracle: Oracle, ids: Sequence[int], owners: Sequence[int]) -> dict[str, dict[int, int]]:
    """Return what each client has counted; owners: at which position is who asks each row."""
    counts = oracle.counts()
    if hasattr(oracle.cohort, "sizes"):
        counts["num_examples"] = oracle.cohort.sizes.tolist()
    if isinstance(owners, range):  # each asks its own
        return {name: dict(zip(ids, numbers, strict=True)) for name, numbers in counts.items()}
    found = {name: dict.fromkeys(ids, 0) for name in counts}
    for name, numbers in counts.items():
        for owner, number in zip(owners, numbers, strict=True):
            found[name][ids[owner]] += number
    return found


def _all_failed(ids: Sequence[int], reason: str) -> Replies:
    return Replies(client_ids=[], failures=dict.fromkeys(ids, reason))


def _serve_one_by_one(
    exchange: Exchange,
    environment: Environment,
    rules: Rules,
    states: Sequence[ClientState],
) -> tuple[Replies, Sequence[ClientState]]:
    parts, after = [], []
    for position, state in enumerate(states):
        replies, (next_state,) = _serve(exchange.select([position]), environment, rules, [state])
        parts.append(replies)
        after.append(next_state)
    return join_replies(parts), after

"""What the driver writes down: counts, a fresh record, answers to reject, answers to miss."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from fedzo.errors import ConfigError, RunError
from fedzo.fleet.jobs import entry_of, jobs_of
from fedzo.objectives.looped_cohort import BLACK_BOX
from fedzo.objectives.records import UNMAPPED
from fedzo.privacy.averages import NOT_AVERAGED
from fedzo.protocol.answers import AWAY
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.sizes import replies_size, sent_size
from fedzo.records.history import RoundRecord
from fedzo.records.virtual_time import VirtualTime
from fedzo.runtime.engine import HasClock
from strategies.core.abilities import can
from strategies.core.rounds import LeavesOut, SpendsPrivacy, TooFewAnswers


def counted(
    total: RoundRecord,
    exchange: Exchange,
    replies: Replies,
    failures: Mapping[int, str],
    *,
    ledger: bool = True,
) -> RoundRecord:
    """Add an exchange and everything that came back, rejected or not, to a record.

    ledger: whether its time follows from what is counted, and so is kept to be priced again. To
    clients that could not be reached nothing was sent.
    """
    here = [i for i, c in enumerate(exchange.client_ids) if replies.failures.get(c) != AWAY]
    reached = exchange if len(here) == len(exchange.client_ids) else exchange.select(here)
    down, up = sent_size(reached, replies), replies_size(replies)
    queries = dict(zip(total.clients, total.client_queries, strict=True))
    asked = replies.counts.get("queries", {})
    moment = exchange.moment
    priced = ledger and bool(here) and not moment.is_judging
    jobs = (entry_of(jobs_of(reached, replies), moment.exchange_index),) if priced else ()
    for client in exchange.client_ids:
        queries[client] = queries.get(client, 0) + asked.get(client, 0)
    everybody = tuple(sorted(queries))
    return replace(
        total,
        queries=total.queries + replies.total("queries"),
        gradients=total.gradients + replies.total("gradients"),
        examples=total.examples + replies.total("examples"),
        floats_up=total.floats_up + up.floats,
        floats_down=total.floats_down + down.floats,
        bytes_up=total.bytes_up + up.bytes,
        bytes_down=total.bytes_down + down.bytes,
        clients=everybody,
        client_queries=tuple(queries[client] for client in everybody),
        failures={**total.failures, **failures},
        non_finite=total.non_finite + replies.total("non_finite"),
        late=total.late + replies.late,
        duplicates=total.duplicates + replies.duplicates,
        jobs=(*total.jobs, *jobs),
    )


def with_time(total: RoundRecord, engine: object) -> RoundRecord:
    """Add what the last call took on the engine's clock, where it has one."""
    if not can(engine, HasClock):
        return total
    return replace(total, virtual=(total.virtual or VirtualTime()) + engine.took)


def with_privacy(total: RoundRecord, state: object) -> RoundRecord:
    """Add what a private method has spent to a record, and whom it asked and left out."""
    if can(state, LeavesOut):
        asked = {c: why for c, why in state.left_out.items() if c in total.clients}
        total = replace(total, failures={**total.failures, **asked})
    if not can(state, SpendsPrivacy):
        return total
    spent = state.privacy
    return replace(
        total,
        epsilon=spent.epsilon,
        epsilon_run=spent.epsilon_run,
        noise_std=spent.noise_std,
        shortened=spent.shortened,
    )


def opened(total: RoundRecord, round_index: int) -> RoundRecord:
    """Return a record that continues the totals and has nothing yet of its own."""
    return replace(
        total,
        round_index=round_index,
        value=None,
        metrics={},
        nodes={},
        judges=0,
        partial=False,
        clients=(),
        client_queries=(),
        failures={},
        non_finite=0,
        late=0,
        duplicates=0,
        jobs=(),
    )


def require_able(reasons: Collection[str], asked: int) -> None:
    """Raise ConfigError where most clients cannot do what they are asked.

    The losses of their records are of no use, or have no gradient and are asked for one.
    """
    for why in (NOT_AVERAGED, BLACK_BOX, UNMAPPED):
        if 2 * sum(why in reason for reason in reasons) > asked:
            raise ConfigError(why)


def require_answers(
    exchanges: Sequence[Exchange], parts: Sequence[Replies], least: int, round_index: int
) -> None:
    """Raise TooFewAnswers, with the first reason, where fewer than `least` of them answer.

    Raises ConfigError as `require_able`. Exchanges that are optional may stay without answers.
    """
    if all(exchange.optional for exchange in exchanges):
        return
    asked = sum(len(exchange.client_ids) for exchange in exchanges)
    answered = sum(len(replies.client_ids) for replies in parts)
    failed = [(c, reason) for replies in parts for c, reason in replies.failures.items()]
    require_able([reason for _, reason in failed], asked)
    if answered >= min(least, asked):
        return
    raise TooFewAnswers(
        f"round {round_index}: {answered} of {asked} clients answered {exchanges[0].kind},"
        f" strategy.min_answers={least}; client {failed[0][0]}: {failed[0][1]}",
        [reason for _, reason in failed],
    )


def tell_unrecorded(error: RunError, before: RoundRecord | None, total: RoundRecord) -> None:
    """Say with an error what the round that it ends has asked, for no record counts that."""
    names = ("queries", "gradients")
    asked = {name: getattr(total, name) - getattr(before, name, 0) for name in names}
    error.unrecorded = asked["queries"]
    told = " and ".join(f"{count:,} {name}" for name, count in asked.items() if count)
    if told:
        error.args = (f"{error}; that round had asked {told}, which no record counts",)


def require_any_answer(records: Sequence[RoundRecord], heard: bool) -> None:
    """Raise RunError where rounds were run and nobody was heard in any of them.

    Raises ConfigError as `require_able`.
    """
    asked = [record for record in records if record.round_index > 0 and record.failures]
    if not asked or heard:
        return
    require_able(asked[-1].failures.values(), asked[-1].clients_asked)
    client, reason = next(iter(asked[-1].failures.items()))
    raise RunError(
        f"nobody has answered in any of {len(asked)} rounds, so x is where it started; client"
        f" {client}: {reason}"
    )

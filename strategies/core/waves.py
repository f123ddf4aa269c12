"""Answers of a wave that can be used, and what is said where there are none."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.question import Question
from fedzo.protocol.wave import Landed, Wave
from strategies.core.accounting import require_able
from strategies.core.robust import Defence
from strategies.core.rounds import RoundConfig, TooFewAnswers
from strategies.core.screening import rejected

NO_CLOCK = (
    "this strategy goes on while clients work, which takes a clock: set fleet.preset to mobile,"
    " fedscale, 5g, silo, nb-iot or file (and fleet.query_s, where clients are asked for values),"
    " or the engine to ray, flower or superlink, which take answers as they arrive"
)


def usable(
    question: Question[Any], landed: Landed, rounds: RoundConfig, defence: Defence
) -> Landed:
    """Return what landed without answers that are rejected, which become failures.

    They are looked at by place, for a client may have answered twice.
    """
    places = range(len(landed.clients))
    if not places:
        return landed
    wrong = rejected(
        [Exchange(question=question, client_ids=places)],
        [Replies(client_ids=places, tensors=landed.tensors)],
        rounds,
        defence,
    )
    return _without(landed, wrong) if wrong else landed


def require_some(landed: Landed, wave: Wave, round_index: int) -> None:
    """Raise TooFewAnswers where nothing can be used, but not for want of queries.

    Raises ConfigError as strategies.core.accounting.require_able.
    """
    if landed.failures:
        require_able(landed.failures.values(), len(landed.failures))
        client, reason = next(iter(landed.failures.items()))
        raise TooFewAnswers(
            f"round {round_index}: none of {len(landed.failures)} clients has given an answer that"
            f" can be used; client {client}: {reason}",
            landed.failures.values(),
        )
    if wave.queries is None or wave.queries >= max(1, wave.queries_each):
        raise TooFewAnswers(f"round {round_index}: nobody could be reached for a day")


def _without(landed: Landed, wrong: Mapping[int, str]) -> Landed:
    kept = torch.tensor(
        [i for i in range(len(landed.clients)) if i not in wrong], dtype=torch.int64
    )
    failed = {landed.clients[place]: reason for place, reason in wrong.items()}
    places = kept.tolist()
    return replace(
        landed,
        clients=[landed.clients[i] for i in places],
        staleness=landed.staleness[kept],
        tensors={name: rows[kept] for name, rows in landed.tensors.items()},
        counts={name: [column[i] for i in places] for name, column in landed.counts.items()},
        failures={**landed.failures, **failed},
    )

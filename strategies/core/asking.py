"""How a round asks: questions to clients, and their answers as the question's own type.

    heard = yield from ask(Values(x=points), plan.cohort)
    heard.said.values                                       # [n, q], row i of heard.clients[i]

What is asked goes to the driver, and what comes back are the answers that it has let pass.
"""

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

from jaxtyping import Int
from torch import Tensor

from fedzo.protocol.exchange import Exchange, Moment, Replies, join_replies
from fedzo.protocol.question import Answer, AnswerT, Question
from fedzo.protocol.wave import Landed, Refill, Sorted, Wave
from fedzo.runtime.engine import Engine

Asked = tuple[Question[AnswerT], Sequence[int]]
"""A question, and who is asked."""
ReturnT = TypeVar("ReturnT")
Asking = Generator[list[Exchange] | Wave, Any, ReturnT]
"""Yields exchanges and gets their replies, or a wave and gets what has landed."""


@dataclass(frozen=True, slots=True)
class Heard(Generic[AnswerT]):
    """Who has answered, ascending, what they said, and what they say that they have counted."""

    clients: Sequence[int]
    said: AnswerT
    counts: Mapping[str, Mapping[int, int]]

    def __len__(self) -> int:
        return len(self.clients)


def ask(
    question: Question[AnswerT], clients: Sequence[int], *, optional: bool = False, **more: Any
) -> Asking[Heard[AnswerT]]:
    """Ask clients, and return what is heard; with `optional` that may be nothing.

    more: what else there is to say of the exchange, such as who is enough.
    """
    exchange = Exchange(question=question, client_ids=clients, optional=optional, **more)
    [replies] = yield [exchange]
    return heard_of(question, replies)


def ask_each(asked: Sequence[Asked[Any]]) -> Asking[list[Heard[Any]]]:
    """Ask disjoint groups at once, each its own question; groups without clients are not asked."""
    replies = iter((yield [Exchange(question=q, client_ids=ids) for q, ids in asked if len(ids)]))
    nobody = Replies(client_ids=[])
    return [heard_of(q, next(replies) if len(ids) else nobody) for q, ids in asked]


def ask_together(asked: Sequence[Asked[AnswerT]]) -> Asking[Heard[AnswerT]]:
    """Ask disjoint groups at once the same kind of question, and return all answers as one.

    A group whose query budget was too small for an answer counts only where nobody had enough.
    """
    exchanges = [Exchange(question=q, client_ids=ids) for q, ids in asked if len(ids)]
    replies = yield exchanges
    telling = [each for each in replies if _says_anything(each)]
    return heard_of(asked[0][0], join_replies(telling or replies))


def _says_anything(replies: Replies) -> bool:
    return any(told.numel() for told in replies.tensors.values())


@dataclass(frozen=True, slots=True)
class LandedAnswers(Generic[AnswerT]):
    """Answers of a wave: whose, how many server steps old [k], and what they said and counted.

    oldest: the round of the oldest question that is still out. failed: who gave no answer.
    """

    clients: Sequence[int]
    staleness: Int[Tensor, " k"]
    said: AnswerT
    counts: Mapping[str, Sequence[int]]
    oldest: int
    failed: Collection[int] = ()

    def __len__(self) -> int:
        return len(self.clients)


def wave(
    question: Question[AnswerT],
    clients: Sequence[int],
    *,
    until: int,
    refill: Refill,
    sort: Sorted | None = None,
) -> Asking[LandedAnswers[AnswerT]]:
    """Send off whoever is free, as many as `clients`, and return the next `until` answers.

    An engine without a clock cannot (fedzo.protocol.wave). sort: says who is asked what, where not
    all get the same question.
    """
    asked = Wave(question=question, until=until, refill=refill, first=clients, sort=sort)
    landed: Landed = yield asked
    said = question.answer(**landed.tensors) if len(landed.clients) else _Nothing()
    return LandedAnswers(
        landed.clients,
        landed.staleness,
        cast(AnswerT, said),
        landed.counts,
        landed.oldest,
        [*landed.failures],
    )


def heard_of(question: Question[AnswerT], replies: Replies) -> Heard[AnswerT]:
    """Return replies as answers to the question."""
    if not len(replies.client_ids):
        return Heard([], cast(AnswerT, _Nothing()), replies.counts)
    said = cast(AnswerT, question.answer(**replies.tensors))
    return Heard(replies.client_ids, said, replies.counts)


def played(steps: Asking[ReturnT], engine: Engine, moment: Moment, seed: int) -> ReturnT:
    """Return what a round ends in whose questions are put to an engine as they are.

    Nothing is counted, judged or rejected: strategies.core.driver runs whole methods.
    """
    try:
        wanted = next(steps)
        while True:
            assert not isinstance(wanted, Wave)
            told = [replace(exchange, moment=moment, seed=seed) for exchange in wanted]
            wanted = steps.send(engine.perform(told, timeout_s=60.0))
    except StopIteration as end:
        result: ReturnT = end.value
        return result


class _Nothing(Answer):
    """What nobody has said; to look into it is a mistake."""

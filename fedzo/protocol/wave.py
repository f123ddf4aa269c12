"""What an asynchronous round asks: a question for whoever is free, and some answers to go on with.

    landed = yield from wave(question, plan, until=10)            # strategies.core.asking

M clients work all the time; the server goes on with every K-th answer, which may be about an x of
rounds ago. K = M with refill "step" is a synchronous round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from fedzo.objectives.asking import OnFailure
from fedzo.protocol.exchange import Exchange, Moment, Replies
from fedzo.protocol.question import Question

Refill = Literal["arrival", "step"]
Sorted = Callable[[Sequence[int]], Sequence[tuple[Question[Any], Sequence[int]]]]
"""Clients, ascending, as groups that are asked different questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """A question to whoever is free, and what the driver adds to it.

    until: answers after which the server goes on. refill: "arrival" sends somebody else off as soon
    as an answer has come, "step" only as many as are missing when the server has stepped. first:
    who is asked where nobody is at work; as many work at a time. num_clients: among whom the next
    are drawn; a tensor of each client's own in the question has a row for every one of them. sort:
    says who is asked what where that differs; cost and answers are those of `question`. queries:
    most that all new jobs may take, None for no limit. at_s: what the clock shows.
    """

    question: Question[Any]
    until: int
    refill: Refill
    first: Sequence[int]
    sort: Sorted | None = None
    num_clients: int = 0
    moment: Moment = Moment()
    seed: int = 0
    at_s: float = 0.0
    queries: int | None = None
    on_failure: OnFailure = "fail"

    @property
    def queries_each(self) -> int:
        """Queries that a job may take."""
        return self.question.cost().queries

    def exchanges(self, client_ids: Sequence[int]) -> list[Exchange]:
        """Return what some clients are asked, who ascend."""
        if self.sort is not None:
            return [self._exchange(question, ids) for question, ids in self.sort(client_ids)]
        question = self.question.select(torch.as_tensor(client_ids))
        return [self._exchange(question, client_ids)]

    def _exchange(self, question: Question[Any], client_ids: Sequence[int]) -> Exchange:
        limited = self.queries is not None and self.queries_each > 0
        return Exchange(
            question=question,
            client_ids=client_ids,
            moment=self.moment,
            seed=self.seed,
            budget=self.queries_each if limited else None,
            on_failure=self.on_failure,
            at_s=self.at_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What came in a wave.

    clients: whose answers, ascending; one may be there twice. staleness: steps of the server since
    each had its question [k]; tensors: name -> [k, ...]; counts: name -> [k]. oldest: the round of
    the oldest question that is still out, or the next one. failures: client -> reason. began: what
    was asked in this wave and all that its clients have done, though some answers are still under
    way.
    """

    clients: Sequence[int]
    staleness: Int[Tensor, " k"]
    tensors: Mapping[str, Tensor]
    counts: Mapping[str, Sequence[int]]
    oldest: int
    failures: Mapping[int, str] = field(default_factory=dict)
    began: Sequence[tuple[Exchange, Replies]] = ()

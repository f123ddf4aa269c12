"""A strategy with a question of its own: clients vote on which way is down, and a liar has one.

s_ij = sign(f_i(x + mu u_j) - f_i(x - mu u_j));   x <- x - lr sum_j sign(sum_i s_ij) u_j
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedzo.estimation.directions import basis_blocks
from fedzo.protocol.question import Answer, Cost, Question, no_numbers
from fedzo.protocol.questions.values import ValuesTold
from strategies import RoundConfig, RoundStrategy
from strategies.core.asking import ask


@dataclass(frozen=True, kw_only=True)
class Vote(Question[ValuesTold]):
    kind: ClassVar[str] = "query.vote"
    answer: ClassVar[type[Answer]] = ValuesTold
    x: Tensor
    row: int

    def shapes(self):
        return {"values": [(4,), (0,)]}

    def cost(self):
        return Cost(queries=8, floats=9 * len(self.x))

    def directions(self, seed, problem):
        first = torch.tensor([self.row])
        return basis_blocks(first, 4, len(self.x), seed=seed, problem=problem)[0].to(self.x)


def answer_vote(vote, clients):
    if clients.oracle.remaining < 8:
        return ValuesTold(values=no_numbers(clients.at(vote.x))), clients.states
    ends = 0.01 * vote.directions(clients.seed, clients.moment.problem)
    points = torch.cat([vote.x + ends, vote.x - ends])
    ahead, behind = clients.oracle.value(clients.at(points)).chunk(2, dim=1)
    return ValuesTold(values=(ahead - behind).sign()), clients.states


@dataclass(frozen=True)
class State:
    x: Tensor


class MajorityVote(RoundStrategy[State]):
    rounds, rules = RoundConfig(), {Vote: answer_vote}

    def init(self, x, num_clients):
        return State(x)

    def round(self, state, plan):
        vote = Vote(x=state.x, row=plan.round_index * len(state.x))
        votes = (yield from ask(vote, plan.cohort)).said.values.sum(dim=0).sign().to(state.x)
        return State(state.x - 0.1 * votes @ vote.directions(plan.seed, plan.problem)[: len(votes)])

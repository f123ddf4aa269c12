"""Markov soccer: two players, one ball, moves made at once and carried out in a random order.

    agent (goal on the right)  |  victim (goal on the left);  steps: stay, up, down, left, right
    value of a pair of policies = P(the victim scores) - P(the agent scores)

Littman, "Markov games as a framework for multi-agent reinforcement learning", ICML 1994. Who would
step onto the other stays, and the ball is the other's; goals are the middle rows of both ends, and
a step off the pitch elsewhere is none. After each step the game goes on with a probability of
`goes_on`, or is a draw; so nothing is discounted. Exact: a linear equation of the states gives how
often each is visited, hence both players' chances. `fictitious_play` trains pairs: each answers the
other's average policy best, and the averages are what is returned (Brown 1951; in each state).

Shapes: s states, 5 steps, policies [s, 5]. Cost: (2/3) s^3 for a pair of policies.
Differs from Littman: 3 x 4 cells by default, his are 4 x 5; where the players start is fixed, and
the ball is either's with chance 1/2.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.config import check_types, require

STEPS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
_PRECISION, _WHILE_PLAYING = 1e-7, 1e-3
"""Of states' values, on their way to those of a best reply; and where replies are averaged."""
_ENTRIES = 10**7
"""Numbers in matrices that are solved together: 80 MB each of a few."""

Policy = Float[Tensor, "*#n s a"]
"""Chances of each step in each state."""


@dataclass(frozen=True, slots=True)
class Dice:
    """What chance decides in k games: where they begin, and at each of t steps what is thrown.

    agent, victim: which step each makes. order: who is first. ends: how many steps there are.
    """

    begins: Int[Tensor, " k"]
    agent: Float[Tensor, "k t"]
    victim: Float[Tensor, "k t"]
    order: Int[Tensor, "k t"]
    ends: Int[Tensor, " k"]


@dataclass(frozen=True)
class Soccer:
    """The game on a pitch of so many rows and columns; raises ConfigError for one too small."""

    height: int = 3
    width: int = 4
    goes_on: float = 0.9

    def __post_init__(self) -> None:
        check_types(self)
        require(3 <= self.height <= 6, "height", self.height, "from 3 to 6")
        require(3 <= self.width <= 8, "width", self.width, "from 3 to 8")
        require(0 < self.goes_on < 1, "goes_on", self.goes_on, "above 0, below 1")

    @cached_property
    def states(self) -> list[tuple[int, int, int]]:
        """(cell of the agent, cell of the victim, whose the ball is: 0 agent, 1 victim)."""
        cells = range(self.height * self.width)
        return [(a, v, b) for a, v in itertools.permutations(cells, 2) for b in (0, 1)]

    @cached_property
    def after(self) -> Int[Tensor, "s a a 2"]:
        """The state after both steps (agent's, victim's), if the agent or the victim is first.

        s stands for a goal of the victim, s + 1 for one of the agent.
        """
        number = {state: i for i, state in enumerate(self.states)}
        number |= {(-1, 0, 0): len(number), (-1, 0, 1): len(number) + 1}
        table = [
            [
                [
                    [number[self._played(state, steps, order)] for order in ((0, 1), (1, 0))]
                    for steps in ((mine, theirs) for theirs in range(len(STEPS)))
                ]
                for mine in range(len(STEPS))
            ]
            for state in self.states
        ]
        return torch.tensor(table)

    @cached_property
    def begins(self) -> Float[Tensor, " s"]:
        """Chance of each state at the beginning."""
        row, column = (self.height - 1) // 2, max(0, self.width // 2 - 1)
        victim = row * self.width + self.width - 1 - column
        agent = (self.height - 1 - row) * self.width + column
        chances = torch.zeros(len(self.states), dtype=torch.float64)
        for ball in (0, 1):
            chances[self.states.index((agent, victim, ball))] = 0.5
        return chances

    @cached_property
    def features(self) -> Float[Tensor, "s p"]:
        """What the agent sees: its cell, and if the victim is beside it; by whose the ball is."""
        rows = torch.tensor(self.states)
        agent, victim, ball = rows.unbind(dim=1)
        down = victim // self.width - agent // self.width
        right = victim % self.width - agent % self.width
        beside = [(down == y) & (right == x) for y, x in STEPS[1:]]
        cells = torch.nn.functional.one_hot(agent, self.height * self.width)
        seen = torch.cat([cells, torch.stack(beside, dim=1)], dim=1).double()
        return torch.cat([seen * (ball == who).unsqueeze(1) for who in (0, 1)], dim=1)

    def visits(self, agent: Policy, victim: Policy) -> tuple[Tensor, Tensor]:
        """Return the expected visits of each state [*n, s], and the chances of goals [*n, 2].

        The first goal is the victim's.
        """
        pairs = agent.double().unsqueeze(-1) * victim.double().unsqueeze(-2) / 2
        many, count = pairs.shape[:-3], len(self.states)
        parts = pairs.reshape(-1, count, 25).split(max(1, _ENTRIES // count**2))
        found = [self._visits(part) for part in parts]
        visits, chances = (torch.cat(each) for each in zip(*found, strict=True))
        return visits.reshape(*many, count), chances.reshape(*many, 2)

    def _visits(self, pairs: Float[Tensor, "n s 25"]) -> tuple[Tensor, Tensor]:
        count = len(self.states)
        pairs = pairs.unsqueeze(-1).expand(-1, -1, -1, 2).reshape(-1, count, 50)
        moves = torch.zeros(len(pairs), count, count + 2, dtype=torch.float64)
        moves.scatter_add_(2, self.after.reshape(count, 50).expand(len(pairs), -1, -1), pairs)
        inside, goals = moves[..., :count], moves[..., count:]
        system = torch.eye(count, dtype=torch.float64) - self.goes_on * inside.transpose(1, 2)
        visits = torch.linalg.solve(system, self.begins.expand(len(pairs), -1))
        return visits, (visits.unsqueeze(1) @ goals).squeeze(1)

    def value(self, agent: Policy, victim: Policy) -> Float[Tensor, "*m"]:
        """Return the chance that the victim scores less that of the agent."""
        chances = self.visits(agent, victim)[1]
        return chances[..., 0] - chances[..., 1]

    def dice(self, count: int, *, generator: np.random.Generator) -> Dice:
        """Draw what chance decides in so many games."""
        ends = torch.from_numpy(generator.geometric(1 - self.goes_on, count))
        shape = (count, int(ends.max()))
        agent, victim = torch.from_numpy(generator.random((2, *shape)))
        begins = torch.from_numpy(generator.choice(len(self.states), count, p=self.begins.numpy()))
        order = torch.from_numpy(generator.integers(0, 2, shape))
        return Dice(begins, agent, victim, order, ends)

    def played(
        self, agents: Float[Tensor, "q s a"], victim: Float[Tensor, "s a"], dice: Dice
    ) -> Float[Tensor, " q"]:
        """Return the victim's goals less the agent's, in the mean over games of these dice."""
        count = len(self.states)
        over = victim.new_zeros(2, len(STEPS))
        chances = [
            torch.cat([policy.double(), over.expand(*policy.shape[:-2], -1, -1)], dim=-2).cumsum(-1)
            for policy in (agents, victim)
        ]
        still = torch.tensor([[count], [count + 1]]).view(2, 1, 1, 1)
        after = torch.cat([self.after, still.expand(-1, len(STEPS), len(STEPS), 2)])
        state = dice.begins.expand(len(agents), -1)
        rows = torch.arange(len(agents)).unsqueeze(1)
        for step in range(dice.agent.shape[1]):
            mine = _thrown(chances[0][rows, state], dice.agent[:, step])
            theirs = _thrown(chances[1][state], dice.victim[:, step])
            moved = after[state, mine, theirs, dice.order[:, step]]
            state = torch.where(dice.ends > step, moved, state)
        goals = (state == count).double() - (state == count + 1).double()
        return goals.mean(dim=1)

    def places(self, shares: Float[Tensor, " s"]) -> Float[Tensor, "h w"]:
        """Return the share of the time that the agent is in each cell."""
        cells = torch.tensor([state[0] for state in self.states])
        found = torch.zeros(self.height * self.width, dtype=shares.dtype)
        return found.index_add(0, cells, shares).reshape(self.height, self.width)

    def best_reply(
        self,
        opponent: Float[Tensor, "n s a"],
        by: int,
        *,
        start: Float[Tensor, "n s"] | None = None,
        own: Float[Tensor, "s a"] | None = None,
        share: float = 1.0,
        precision: float = _PRECISION,
    ) -> tuple[Float[Tensor, "n s a"], Float[Tensor, "n s"]]:
        """Return the best policies of the agent (by 0) or the victim (by 1), and states' values.

        share: of the steps that are chosen so; the rest follow `own`. start: values to begin from.
        """
        sign = -1.0 if by == 0 else 1.0
        after = self.after if by == 0 else self.after.transpose(1, 2)
        chance = opponent.double().unsqueeze(2) / 2
        values = opponent.new_zeros(opponent.shape[:2]).double() if start is None else start
        ends = torch.tensor([[1.0, -1.0]], dtype=torch.float64).expand(len(opponent), 2)
        moved = math.inf
        while moved > precision * (1 - self.goes_on):
            worth = torch.cat([self.goes_on * values, ends], dim=1)[:, after].sum(-1)
            each = (worth * chance).sum(-1)
            best = (sign * each).argmax(-1)
            now = each.gather(2, best.unsqueeze(2)).squeeze(2)
            if own is not None:
                now = share * now + (1 - share) * (each * own).sum(-1)
            moved, values = float((now - values).abs().max()), now
        return torch.nn.functional.one_hot(best, len(STEPS)).double(), values

    def fictitious_play(
        self, count: int, rounds: int, *, generator: np.random.Generator
    ) -> tuple[Float[Tensor, "n s a"], Float[Tensor, "n s a"]]:
        """Return trained pairs, agents and victims, each from random policies of its own."""
        shape = (2, count, len(self.states))
        drawn = generator.dirichlet(np.ones(len(STEPS)), size=shape)
        agents, victims = torch.from_numpy(drawn)
        worth: list[Tensor | None] = [None, None]
        for played in range(1, rounds + 1):
            for_agent, worth[0] = self.best_reply(
                victims, 0, start=worth[0], precision=_WHILE_PLAYING
            )
            for_victim, worth[1] = self.best_reply(
                agents, 1, start=worth[1], precision=_WHILE_PLAYING
            )
            agents = agents + (for_agent - agents) / (played + 1)
            victims = victims + (for_victim - victims) / (played + 1)
        return agents, victims

    def _played(
        self, state: tuple[int, int, int], steps: tuple[int, int], order: tuple[int, int]
    ) -> tuple[int, int, int]:
        """Return the state after both steps in an order; (-1, 0, who) is a goal, victim's first."""
        cells, ball = list(state[:2]), state[2]
        for who in order:
            row, column = divmod(cells[who], self.width)
            down, right = STEPS[steps[who]]
            goal = self.width if who == 0 else -1
            if ball == who and column + right == goal and self._before_goal(row):
                return (-1, 0, 1 - who)
            if not (0 <= row + down < self.height and 0 <= column + right < self.width):
                continue
            cell = (row + down) * self.width + column + right
            if cell == cells[1 - who]:
                ball = 1 - who
            else:
                cells[who] = cell
        return cells[0], cells[1], ball

    def _before_goal(self, row: int) -> bool:
        """Say whether a row is one of the middle two, or the middle one of an odd number."""
        return (self.height - 1) // 2 <= row <= self.height // 2


def _thrown(chances: Float[Tensor, "q k a"], thrown: Float[Tensor, " k"]) -> Int[Tensor, "q k"]:
    """Return the steps that dice choose by cumulated chances."""
    return (thrown.unsqueeze(-1) >= chances[..., :-1]).sum(-1)

"""Seed and scalar: modules moved where they are, numbers up and down, whatever their size.

    client i, K times:  s_ik = [f_i(x_ik + mu u_k) - f_i(x_ik - mu u_k)] / (2 mu),
                        x_i,k+1 = x_ik - (local_lr / m) s_ik u_k          from x_i0 = x, and back
    server:             x <- x - (lr / m) sum_k mean_i(s_ik) u_k          u_k: m directions each

Li et al., "DeComFL: Achieving Dimension-Free Communication in Federated Learning via Zeroth-Order
Optimization", ICLR 2025; Qin et al., "FedKSeed", ICML 2024 (`client.candidates`). With
K = 1 and one client it is MeZO: Malladi et al., "Fine-Tuning Language Models with Just Forward
Passes", NeurIPS 2023, algorithm 1. All clients walk along the same directions, so with local_lr =
lr the server's x is the mean of theirs: FedZO, without a vector. Nobody holds x as a vector: the
state is a log of coefficients, a direction each, and every client replays it into its module.
Shapes: log [k], slopes [n, K m]. Numbers a client and round: K m up; down what it has not been told
of the log, K m where it took part in the round before, and 4 bytes a missed number where not.
Queries: K times the scheme's (central: 2 m). Memory of a client above a forward pass: about its
largest tensor, and the log.

A robust rule (`strategy.aggregator`) acts on the slopes, in R^(K m), as in seedzo.

Differs from the papers: directions are keyed signs by default; probing and local steps never write
to x, and a step is added in one go; a client that fails is told the whole log when it is asked
again; candidates are drawn by a key that all know, the same for all clients of a step. Whoever
judges F is told what the longest absent client has missed: with few participants, judge seldom
(`evaluate_every`, `judges`), or let the scenario judge.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fedzo.config import check_types, require
from fedzo.estimation.replay import Log
from fedzo.parts import composed, part
from fedzo.protocol.questions.in_place import (
    InPlaceConfig,
    InPlaceQuestion,
    JudgeInPlace,
    SlopesInPlace,
)
from fedzo.protocol.questions.probes import Probed
from fedzo.used_with import UsedWith, above
from strategies.core.asking import Asking, Heard, ask_together
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import RobustConfig, aggregate
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.step_config import RateConfig


@composed
class WalkConfig:
    """What clients and server do with slopes: the server steps along their means.

    local_steps: of each client in a round. local_lr: of these; 0: the server's, as in the paper.
    """

    rate: RateConfig = part(RateConfig, server_lr=1e-3)
    local_steps: int = 1
    local_lr: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {"local_lr": above("local_steps", 1)}

    def __post_init__(self) -> None:
        check_types(self)
        require(self.local_steps >= 1, "local_steps", self.local_steps, "at least 1")
        require(0 <= self.local_lr < math.inf, "local_lr", self.local_lr, "0 or more, and finite")

    @property
    def client_lr(self) -> float:
        """The rate of a client's own steps."""
        return self.local_lr or self.rate.server_lr


@composed
class SeedScalarConfig:
    """Settings of seed and scalar."""

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig)
    walk: WalkConfig = part(WalkConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedScalarState:
    """How many numbers x has, and the coefficients of all directions that it was moved along.

    told: how much of the log each client remembers, as far as is known. start: a digest of the
    modules' parameters before the first round, which who is told all of the log must have too.
    """

    dim: int
    log: Log
    settings: InPlaceConfig
    told: Int[Tensor, " n"]
    start: str = ""

    @property
    def x(self) -> Float[Tensor, " d"]:
        """A vector without numbers: these are in the modules."""
        return torch.empty(self.dim, device="meta")

    def judge(self) -> JudgeInPlace:
        """Return the question by which x is judged."""
        first = int(self.told.min())
        question = JudgeInPlace(news=self.log, settings=self.settings)
        return self.since(question, first)

    def since(self, question: "QuestionT", told: int) -> "QuestionT":
        """Return a question to those that have been told so much of the log."""
        start = "" if told else self.start
        return replace(question, news=self.log[told:], first=told, start=start)

    def beginning_at(self, start: str) -> "SeedScalarState":
        """Return the state that tells clients where modules begin, a digest."""
        return replace(self, start=start)

    def unsure_of(self: "StateT", clients: Sequence[int]) -> "StateT":
        """Return the state in which these are told all of the log when they are next asked."""
        told = self.told.clone()
        told[list(clients)] = 0
        return replace(self, told=told)

    def bring_(self, module: nn.Module, *, seed: int, problem: int) -> None:
        """Move a module, made as the clients', to where the log leads."""
        self.settings.replay(seed, problem).bring_(module, self.log)


StateT = TypeVar("StateT", bound=SeedScalarState)
QuestionT = TypeVar("QuestionT", bound=InPlaceQuestion[Any])


class SeedScalar(ConfiguredStrategy[SeedScalarConfig, InPlaceConfig, SeedScalarState]):
    """Zeroth-order SGD on modules in place, with local steps."""

    client_config = InPlaceConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> SeedScalarState:
        return started(x, num_clients, self._client, SeedScalarState)

    def round(self, state: SeedScalarState, plan: RoundPlan) -> Round[SeedScalarState]:
        heard = yield from ask_slopes(state, plan.cohort, self._config.walk)
        slopes = heard.said.slopes
        assert slopes is not None
        if slopes.shape[1] == 0:
            return state
        mean = aggregate(slopes, self.robust, plan, purpose="slopes")
        return moved(state, plan.cohort, heard, mean, self._config.walk)


def started(
    x: Float[Tensor, " d"],
    num_clients: int,
    client: InPlaceConfig,
    state: type[StateT],
    **more: object,
) -> StateT:
    """Return the state before the first round, in which nobody has been told anything."""
    told = torch.zeros(num_clients, dtype=torch.int64)
    return state(dim=len(x), log=torch.empty(0), settings=client, told=told, **more)  # type: ignore[arg-type]


def ask_slopes(
    state: SeedScalarState, cohort: Sequence[int], walk: WalkConfig
) -> Asking[Heard[Probed]]:
    """Ask each client for slopes, with what it has not been told of the log."""
    heard = yield from ask_together(by_news(slopes_question(state, walk), state, cohort))
    return heard


def slopes_question(state: SeedScalarState, walk: WalkConfig) -> SlopesInPlace:
    """Return the question about the next directions, with the whole log."""
    return SlopesInPlace(
        news=state.log,
        settings=state.settings,
        local_steps=walk.local_steps,
        local_lr=walk.client_lr,
    )


def by_news(
    question: QuestionT, state: SeedScalarState, clients: Sequence[int]
) -> list[tuple[QuestionT, Sequence[int]]]:
    """Return groups of clients that have been told as much of the log, and a question to each."""
    groups: dict[int, list[int]] = {}
    for client in clients:
        groups.setdefault(int(state.told[client]), []).append(client)
    return [(state.since(question, n), groups[n]) for n in sorted(groups)]


def moved(
    state: StateT,
    cohort: Sequence[int],
    heard: Heard[Probed],
    mean: Float[Tensor, " k"],
    walk: WalkConfig,
) -> StateT:
    """Return the state after a step along means of slopes; who has not answered is told all."""
    step = -walk.rate.server_lr / state.settings.num_directions * mean
    after = state.unsure_of(cohort)
    after.told[list(heard.clients)] = len(state.log)
    return replace(after, log=torch.cat([state.log, step.float()]))

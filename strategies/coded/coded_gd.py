"""Gradient descent whose gradients are coded over machines, some of which may be slow.

    x_(t+1) = P(server_step(x_t, grad F(x_(t - T))))        T = the scheme's delay, 0 for gc

Machines 0 .. n - 1 are the first n clients, or all, and work on the data of all N of them: a unit
of the scheme is N / units clients. Krishnan et al., "Sequential Gradient Coding For Straggler
Mitigation", ICLR 2023 (fedzo.coding). The round ends a little after the first answer (`patience`),
and waits for more where a job could not be decoded in time without. Where even all that came is too
little, since answers were lost, the round is void and asked again, so every step is exact.

Shapes: x [d]; sums [n, r, d] in a round, kept for T + 1 jobs. Sent: T + 1 points down, r vectors up
to each machine and from it. Cost: the load times N gradients a machine and round. Differs from the
paper: with T > 0 one model steps along a gradient that is T rounds old, instead of T + 1 models
that take turns; without a clock (fleet.preset) nobody is slow.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from fedzo.coding.scheme import Scheme, Task
from fedzo.coding.schemes import GC, MSGC, SRSGC
from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.optimizers import OptimizerState
from fedzo.parts import composed, part
from fedzo.protocol.questions.coded import NO_SHARD, CodedConfig, CodedTasks
from fedzo.used_with import UsedWith, one_of
from strategies.core.asking import ask
from strategies.core.configured import ConfiguredStrategy
from strategies.core.rounds import Round, RoundConfig, RoundPlan, TooFewAnswers
from strategies.core.server_step import server_step
from strategies.core.step_config import ServerConfig

_IN_BURSTS = one_of("code", "sr_sgc", "m_sgc")


@composed
class CodedGDConfig:
    """Settings of coded gradient descent.

    code: gc in each round, or over rounds, sr_sgc and m_sgc. num_workers: the machines, the first
    clients; 0 is all. stragglers: how many machines may be slow: a round (gc), or in any window
    rounds, each within burst rounds in a row. patience: the round goes on for so many times the
    seconds of the first answer, which nothing measures without a clock.
    """

    base: RoundConfig = part(RoundConfig)
    server: ServerConfig = part(ServerConfig, server_lr=0.1)
    code: Literal["gc", "sr_sgc", "m_sgc"] = "gc"
    num_workers: int = 0
    stragglers: int = 1
    burst: int = 1
    window: int = 2
    patience: float = 1.5
    USED_WITH: ClassVar[UsedWith] = {"burst": _IN_BURSTS, "window": _IN_BURSTS}

    def __post_init__(self) -> None:
        require(self.num_workers >= 0, "num_workers", self.num_workers, "0 (all clients) or more")
        require(self.patience >= 1, "patience", self.patience, "at least 1")
        share = self.base.participation
        require(share == 1, "participation", share, "1: machines are the first num_workers")
        if self.num_workers:
            self.scheme(self.num_workers)

    def scheme(self, num_clients: int) -> Scheme:
        """Return the scheme that these name; raises ConfigError where there is none."""
        workers = self.num_workers or num_clients
        if self.code == "gc":
            return GC(workers, self.stragglers)
        kind = SRSGC if self.code == "sr_sgc" else MSGC
        return kind(workers, burst=self.burst, window=self.window, stragglers=self.stragglers)


@dataclass(frozen=True, slots=True)
class CodedState:
    """x, moments, and the jobs that are not decoded: the oldest first.

    jobs: how many have begun. points: where each is [j, d]; sums, arrived: what has come of each
    [j, n, slots (, d)].
    """

    x: Float[Tensor, " d"]
    moments: OptimizerState
    jobs: int
    points: Float[Tensor, "j d"]
    sums: Float64[Tensor, "j n s d"]
    arrived: Bool[Tensor, "j n s"]


class CodedGD(ConfiguredStrategy[CodedGDConfig, CodedConfig, CodedState]):
    """Gradient descent with coded gradients."""

    client_config = CodedConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> CodedState:
        scheme = self._config.scheme(num_clients)
        units = scheme.units
        require(scheme.workers <= num_clients, "clients", num_clients, f"{scheme.workers} or more")
        if num_clients % units:
            raise ConfigError(
                f"clients={num_clients} cannot be divided into the {units} equal units of"
                f" strategy.code={self._config.code}; use {-(-num_clients // units) * units}"
            )
        shape = (0, scheme.workers, scheme.slots)
        return CodedState(
            x=x,
            moments=self._optimizer.init(x),
            jobs=0,
            points=x.new_empty(0, len(x)),
            sums=torch.empty(*shape, len(x), dtype=torch.float64),
            arrived=torch.empty(*shape, dtype=torch.bool),
        )

    def round(self, state: CodedState, plan: RoundPlan) -> Round[CodedState]:
        scheme = self._config.scheme(plan.num_clients)
        state = self._begun(state)
        first = state.jobs - len(state.points) + 1
        known = {first + i: table.numpy() for i, table in enumerate(state.arrived)}
        tasks = scheme.assign(state.jobs, known)

        def is_enough(answered: Collection[int]) -> bool:
            after = scheme.after(known, tasks, sorted(answered))
            return scheme.is_feasible(state.jobs, after)

        question = _question(scheme, state, tasks, first, plan.num_clients)
        patience = self._config.patience
        machines = range(scheme.workers)
        heard = yield from ask(question, machines, is_enough=is_enough, patience=patience)
        if not is_enough(heard.clients):
            raise TooFewAnswers(
                f"round {plan.round_index}: {len(heard)} of {scheme.workers} machines have"
                " answered, by which a gradient could not be decoded; raise strategy.stragglers"
            )
        sums, arrived = state.sums.clone(), state.arrived.clone()
        for row, worker in enumerate(heard.clients):
            for place, (job, slot) in enumerate(tasks[worker]):
                sums[job - first, worker, slot] = heard.said.sums[row, place].double()
                arrived[job - first, worker, slot] = True
        state = replace(state, sums=sums, arrived=arrived)
        return self._stepped(scheme, state, plan) if state.jobs > scheme.delay else state

    def _begun(self, state: CodedState) -> CodedState:
        """Return the state with one more job, at x."""
        return replace(
            state,
            jobs=state.jobs + 1,
            points=torch.cat([state.points, state.x.unsqueeze(0)]),
            sums=_with_zeros(state.sums),
            arrived=_with_zeros(state.arrived),
        )

    def _stepped(self, scheme: Scheme, state: CodedState, plan: RoundPlan) -> CodedState:
        """Return the state after a step along the gradient of the oldest job."""
        weights = scheme.decode(state.arrived[0].numpy())
        assert weights is not None, "feasible jobs are decoded when they are due"
        total = torch.einsum("ns,nsd->d", torch.from_numpy(weights), state.sums[0])
        gradient = (total / plan.num_clients).to(state.x)
        stepped = server_step(state, gradient, plan, self._optimizer, self._config.server.server_lr)
        return replace(
            stepped,
            points=state.points[1:],
            sums=state.sums[1:],
            arrived=state.arrived[1:],
        )


def _question(
    scheme: Scheme,
    state: CodedState,
    tasks: list[list[Task]],
    first: int,
    num_clients: int,
) -> CodedTasks:
    """Return every machine's tasks, as shards that count so much at one of the points."""
    size = num_clients // scheme.units
    pieces = [[scheme.pieces(w, slot) for _, slot in each] for w, each in enumerate(tasks)]
    width = size * max(len(units) for each in pieces for units, _ in each)
    shape = (scheme.workers, scheme.per_round)
    point = np.zeros(shape, dtype=np.int64)
    shards = np.full((*shape, width), NO_SHARD, dtype=np.int64)
    counts = np.zeros((*shape, width))
    for worker, each in enumerate(pieces):
        for place, (units, weights) in enumerate(each):
            point[worker, place] = tasks[worker][place][0] - first
            members = (units[:, None] * size + np.arange(size)).ravel()
            shards[worker, place, : len(members)] = members
            counts[worker, place, : len(members)] = np.repeat(weights, size)
    return CodedTasks(
        points=state.points,
        point=torch.from_numpy(point),
        shards=torch.from_numpy(shards),
        counts=torch.from_numpy(counts),
    )


def _with_zeros(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor.new_zeros(1, *tensor.shape[1:])])

"""Values of modules at x + mu u where x is the modules' own parameters: no vector is sent.

    the log [k]: what has been added to the start, one coefficient a direction; m directions a step
    news: what a client has not been told of it, the numbers from `first` on

    SlopesInPlace:  news        ->  slopes [n, K m] along the K m directions after those of the log
    RecordSlopesInPlace:  news  ->  slopes [n, m] at x, a mean of records' clipped slopes
    SlopesInWave:   news, step  ->  the same along those of K steps from this one on
    JudgeInPlace:   news        ->  values [n, 1] at the x that the log leads to

Between its K questions a client walks by itself, x <- x - (local_lr / m) sum_i s_i u_i, and comes
back. Number j of the log belongs to direction j of the run: Key(seed, ("in place", problem), law,
j), see fedzo.estimation.replay, also of logs whose rows [r, 1 + m] say their step. Cost: K times
the scheme's queries, or one. Sent, whatever d: the news down, K m numbers up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.estimation.keys import Law
from fedzo.estimation.replay import Log, Replay
from fedzo.estimation.schemes import SCHEMES, SharedName
from fedzo.privacy.averages import QUERIES
from fedzo.privacy.gaussian import NoiseSource
from fedzo.protocol.question import Answer, AnswerT, Cost, Question, Shapes
from fedzo.protocol.questions.probes import Probed
from fedzo.protocol.questions.training_config import MinibatchConfig
from fedzo.protocol.questions.values import ValuesTold


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlaceConfig(MinibatchConfig):
    """Settings of the rule `in_place`.

    estimator: the difference scheme. directions: signs (rademacher) or normals (gaussian), keyed.
    num_directions: a step. mu: smoothing radius, in units of x. candidates: how many directions
    there are, of which every step draws its own (FedKSeed); 0: new ones for ever.
    """

    estimator: SharedName = "central"
    directions: Law = "rademacher"
    num_directions: int = 1
    mu: float = 1e-3
    candidates: int = 0

    def __post_init__(self) -> None:
        MinibatchConfig.__post_init__(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < float("inf"), "mu", self.mu, "a positive number")
        require(self.candidates >= 0, "candidates", self.candidates, "0 (new ones) or more")

    def replay(self, seed: int, problem: int) -> Replay:
        """Return the stream of directions of a run and problem."""
        return Replay(
            seed=seed,
            problem=problem,
            law=self.directions,
            num_directions=self.num_directions,
            candidates=self.candidates,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlaceQuestion(Question[AnswerT]):
    """What both have: the log from `first` on, and the settings that it was made with.

    start: to those that are told all of it, a digest of where their modules must begin.
    """

    news: Log
    first: int = 0
    settings: InPlaceConfig
    start: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopesInPlace(InPlaceQuestion[Probed]):
    """Slopes along new directions, at x and at the places where a client then walks."""

    local_steps: int = 1
    local_lr: float = 0.0

    kind: ClassVar[str] = "query.slopes_in_place"
    answer: ClassVar[type[Answer]] = Probed

    def shapes(self) -> Mapping[str, Shapes]:
        return {"slopes": [(self.local_steps * self.settings.num_directions,), (0,)]}

    def cost(self) -> Cost:
        asked = SCHEMES[self.settings.estimator].num_queries(self.settings.num_directions)
        return Cost(queries=self.local_steps * asked)

    def first_step(self, log: Log) -> int:
        """Return the number of the first step whose directions are asked about, after a log."""
        return len(log) // self.settings.num_directions


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSlopes(Probed):
    """Means of clipped slopes, and the share of records whose slopes were shortened."""

    shortened: Float[Tensor, "n 1"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSlopesInPlace(SlopesInPlace):
    """Means over records of clipped slopes, at x: for privacy of records.

    compare: whether records' losses must first be shown to average to the objective. report:
    whether the share of shortened records is told, for simulations. noise_source: of the samples of
    settings.batch_size records, fedzo.privacy.gaussian.
    """

    clip_norm: float
    compare: bool = False
    report: bool = False
    noise_source: NoiseSource = "os"

    kind: ClassVar[str] = "query.record_slopes_in_place"
    answer: ClassVar[type[Answer]] = RecordSlopes

    def shapes(self) -> Mapping[str, Shapes]:
        more: dict[str, Shapes] = {"shortened": [(1,), (0,)]} if self.report else {}
        return {**SlopesInPlace.shapes(self), **more}

    def cost(self) -> Cost:
        return Cost(queries=SlopesInPlace.cost(self).queries + QUERIES * self.compare)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopesInWave(SlopesInPlace):
    """Slopes of clients that work on while the server goes on; the log is numbered."""

    step: int

    kind: ClassVar[str] = "query.slopes_in_wave"

    def first_step(self, log: Log) -> int:
        return self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeInPlace(InPlaceQuestion[ValuesTold]):
    """How good x is."""

    kind: ClassVar[str] = "query.judge_in_place"
    answer: ClassVar[type[Answer]] = ValuesTold
    judges: ClassVar[bool] = True

    def shapes(self) -> Mapping[str, Shapes]:
        return {"values": [(1,), (0,)]}

    def cost(self) -> Cost:
        return Cost(queries=1)

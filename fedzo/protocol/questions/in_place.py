"""Values of modules at x + mu u where x is the modules' own parameters: no vector is sent.

    log [k]: what has been added to the start, one coefficient a direction; m directions a step

    SlopesInPlace:  log  ->  slopes [n, m] along the m directions after those of the log
    JudgeInPlace:   log  ->  values [n, 1] at the x that the log leads to

Number j of the log belongs to direction j of the run: Key(seed, ("in place", problem), law, j), see
fedzo.estimation.keys. Cost: the scheme's queries, or one. Sent: k floats down, m up, whatever d.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float32
from torch import Tensor

from fedzo.config import require
from fedzo.estimation.keys import Law
from fedzo.estimation.replay import Replay
from fedzo.estimation.schemes import SCHEMES, SharedName
from fedzo.protocol.question import Answer, AnswerT, Cost, Question, Shapes
from fedzo.protocol.questions.probes import Probed
from fedzo.protocol.questions.training_config import MinibatchConfig
from fedzo.protocol.questions.values import ValuesTold


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlaceConfig(MinibatchConfig):
    """Settings of the rule `in_place`.

    estimator: the difference scheme. directions: signs (rademacher) or normals (gaussian), keyed.
    num_directions: a round. mu: smoothing radius, in units of x.
    """

    estimator: SharedName = "central"
    directions: Law = "rademacher"
    num_directions: int = 1
    mu: float = 1e-3

    def __post_init__(self) -> None:
        MinibatchConfig.__post_init__(self)
        require(self.num_directions >= 1, "num_directions", self.num_directions, "at least 1")
        require(0 < self.mu < float("inf"), "mu", self.mu, "a positive number")

    def replay(self, seed: int, problem: int) -> Replay:
        """Return the stream of directions of a run and problem."""
        return Replay(
            seed=seed, problem=problem, law=self.directions, num_directions=self.num_directions
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlaceQuestion(Question[AnswerT]):
    """What both have: the log that leads to x, and the settings that it was made with."""

    log: Float32[Tensor, " k"]
    settings: InPlaceConfig

    def cost(self) -> Cost:
        asked = SCHEMES[self.settings.estimator].num_queries(self.settings.num_directions)
        return Cost(queries=asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopesInPlace(InPlaceQuestion[Probed]):
    """Slopes at x along new directions."""

    kind: ClassVar[str] = "query.slopes_in_place"
    answer: ClassVar[type[Answer]] = Probed

    def shapes(self) -> Mapping[str, Shapes]:
        return {"slopes": [(self.settings.num_directions,), (0,)]}


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

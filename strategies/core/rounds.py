"""What a round is: its settings, what the driver has decided for it, and its generator.

    def round(self, state, plan):
        heard = yield from ask(Values(x=points), plan.cohort)     # strategies.core.asking
        return next_state

The driver (strategies.core.driver) does everything else: it samples cohorts, adds seed, round and
budget to each exchange, drops failed and non-finite answers, counts, evaluates, records and
checkpoints.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from fedzo.config import check_types, require, require_nonnegative
from fedzo.errors import RunError
from fedzo.estimation.replay import Log
from fedzo.objectives.circuit import rest_of
from fedzo.objectives.objective import Bound
from fedzo.protocol.question import Question
from fedzo.protocol.questions.values import ValuesTold
from fedzo.used_with import UsedWith, below, other_than
from strategies.core.abilities import can
from strategies.core.asking import Asking


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundConfig:
    """What every strategy can be told about its rounds.

    participation: share of the clients asked in a round, sampled anew each time, at least one.
    over_selection: so many times as many are asked, and the round goes on with the answers that
    come first, as many as participation says (Bonawitz et al., MLSys 2019: 1.3); needs a fleet.
    min_answers: fewer answers to the exchanges made at once spoil the round. max_failed_rounds:
    rounds in a row that may be spoilt, and leave x as it was, before the run ends. non_finite:
    whether answers with NaN or inf are rejected, or passed on to a rule; auto rejects them, unless
    too few would remain for a robust rule, for which they then count among num_byzantine.
    timeout_s: longest wait for an exchange. evaluate_every: rounds between evaluations of F; 0
    evaluates only the first and the last x, and none of a private method that clients would have to
    be asked about.
    judges: clients that are asked for F, drawn anew each time: F is then their mean, with its
    standard error over the draw among the metrics; 0 is all.
    min_judges: as many clients must answer for an F that can be the best, or say that the goal is
    reached; 0 is all asked but those who did not answer in the round before either, and more than
    half.
    """

    participation: float = 1.0
    over_selection: float = 1.0
    min_answers: int = 1
    max_failed_rounds: int = 3
    non_finite: Literal["auto", "reject", "pass"] = "auto"
    timeout_s: float = 3600.0
    evaluate_every: int = 1
    judges: int = 0
    min_judges: int = 0
    USED_WITH: ClassVar[UsedWith] = {
        "over_selection": (other_than("fleet.preset", "none"), below("participation", 1)),
    }

    def cohort_size(self, num_clients: int) -> int:
        """Return how many clients are asked in a round."""
        return max(1, round(self.participation * num_clients))

    def __post_init__(self) -> None:
        check_types(self)
        require(0 < self.participation <= 1, "participation", self.participation, "in (0, 1]")
        over = self.over_selection
        require(1 <= over < math.inf, "over_selection", over, "at least 1")
        require(self.min_answers >= 1, "min_answers", self.min_answers, "at least 1")
        require_nonnegative("max_failed_rounds", self.max_failed_rounds)
        require(self.timeout_s > 0, "timeout_s", self.timeout_s, "positive")
        require(self.evaluate_every >= 0, "evaluate_every", self.evaluate_every, "0 or more")
        require(self.judges != 1 and self.judges >= 0, "judges", self.judges, "0, or 2 or more")
        require(self.min_judges >= 0, "min_judges", self.min_judges, "0 or more")


class TooFewAnswers(RunError):
    """Fewer clients answered an exchange than the strategy needs.

    reasons: why clients failed. rest_s: for how long all that did are left alone by themselves, so
    that there is no use in asking them before; 0 where one is not.
    """

    def __init__(self, message: str, reasons: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.rest_s = min(map(rest_of, reasons), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """What the driver has decided for a round: its number (from 1), the cohort, the box of x.

    wanted: answers of the cohort that are enough, 0 or all of it where nobody else was asked.
    judged: whether x will be judged after it. num_rounds: at most as many will be run, for each of
    num_problems that are put to the same clients. image: whether x is a square image, None where
    nobody knows.
    """

    round_index: int
    num_rounds: int = 0
    num_clients: int
    cohort: Sequence[int]
    wanted: int = 0
    seed: int = 0
    problem: int = 0
    num_problems: int = 1
    judged: bool = True
    image: bool | None = None
    lower: Bound = -float("inf")
    upper: Bound = float("inf")


@runtime_checkable
class HasX(Protocol):
    """A strategy's state is a frozen dataclass that holds at least the current x."""

    @property
    def x(self) -> Float[Tensor, " d"]: ...


class Answers(Protocol):
    """What clients have answered at one point."""

    @property
    def clients(self) -> Int[Tensor, " k"]: ...

    @property
    def values(self) -> Float[Tensor, " k"]: ...


@runtime_checkable
class KnowsAnswers(Protocol):
    """A state that may hold what clients have answered at its x: judging then asks nobody again."""

    @property
    def answered(self) -> Answers:
        """Return the values at x of those who were asked there."""
        ...


@runtime_checkable
class KnowsMemories(Protocol):
    """A state that says what clients have been told, so that they are not told it again."""

    def unsure_of(self, clients: Sequence[int]) -> Any:
        """Return the state after a round that came to nothing, but was told to some of these."""
        ...


def undone(state: Any, plan: RoundPlan, failed: Collection[int]) -> Any:
    """Return the state before a round that came to nothing, of which clients have been told.

    failed: in it, also those of a wave that had begun in one before.
    """
    told = [*plan.cohort, *(client for client in failed if client not in plan.cohort)]
    return state.unsure_of(told) if can(state, KnowsMemories) else state


@runtime_checkable
class KnowsModels(Protocol):
    """A state of a method without a common x: every node has a model, x only stands for them."""

    @property
    def clients(self) -> Int[Tensor, " k"]:
        """Return the nodes that have reported their models."""
        ...

    @property
    def models(self) -> Float[Tensor, "k d"]:
        """Return these models."""
        ...


@runtime_checkable
class IsInPlace(Protocol):
    """A state whose x is where clients have it, and no vector here (x has no numbers: "meta")."""

    @property
    def log(self) -> Log:
        """Return what was added to the start."""
        ...

    def judge(self) -> Question[ValuesTold]:
        """Return the question by which x is judged."""
        ...


@runtime_checkable
class BringsModules(Protocol):
    """A state in place that can move a module, made as the clients', to where it is."""

    def bring_(self, module: nn.Module, *, seed: int, problem: int) -> None:
        """Move a module's trained parameters from the start of a run's problem, or a stop since."""
        ...

    def beginning_at(self, start: str) -> Any:
        """Return the state that tells clients where modules begin, a digest."""
        ...


@runtime_checkable
class Reports(Protocol):
    """A state that has measured something; the history keeps it beside the scenario's metrics."""

    @property
    def report(self) -> Mapping[str, float]:
        """Name -> what was measured last."""
        ...


@runtime_checkable
class SpendsPrivacy(Protocol):
    """A state of a private method; the history keeps what has been spent and how."""

    @property
    def privacy(self) -> "Spending": ...


@runtime_checkable
class LeavesOut(Protocol):
    """A state of a method that does not let every client take part."""

    @property
    def left_out(self) -> Mapping[int, str]:
        """Client -> why it does not take part; those asked in a round are its failures."""
        ...


@runtime_checkable
class Spending(Protocol):
    """What was spent on this problem, and in the run so far, and the last release.

    That is, the std of its noise, and the share of shortened vectors.
    """

    @property
    def epsilon(self) -> float: ...

    @property
    def epsilon_run(self) -> float: ...

    @property
    def noise_std(self) -> float: ...

    @property
    def shortened(self) -> float | None: ...


class PrivacySpent(Exception):
    """The next release would exceed the privacy budget; nothing of it was asked.

    An expected end, like StopIteration.
    """


StateT = TypeVar("StateT", bound=HasX)
Round = Asking[StateT]

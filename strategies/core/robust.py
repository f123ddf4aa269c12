"""How a strategy makes one vector of its clients' answers when some of them may lie.

    strategy.aggregator = nearest_neighbor_mixing | trimmed_mean      (fedzo.aggregation)
    strategy.num_byzantine = f

Whatever a strategy averages (updates, slopes, weights, control variates), it averages here. Where
so many answers are missing that the rule cannot withstand f liars among the rest, the round is
spoilt, as it is where fewer than `min_answers` come.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.aggregation import Aggregator, mean, parse_aggregator
from fedzo.aggregation.distances import nearest, squared_distances_to
from fedzo.aggregation.rows import finite_rows
from fedzo.config import check_types, require
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from fedzo.used_with import UsedWith, above, where
from strategies.core.rounds import RoundPlan, TooFewAnswers


def _more_than_mean(rule: str | None, num_byzantine: int | None) -> bool:
    """Return whether a rule differs from the mean where nobody is expected to lie."""
    if rule is None or num_byzantine or parse_aggregator(rule).is_mean:
        return True
    some = torch.tensor([[0.0, 1.0], [1.0, -2.0], [2.0, 7.0], [4.0, 5.0], [9.0, 0.5]]).double()
    try:
        told = parse_aggregator(rule)(some, num_byzantine=0, generator=stream(0, "try out"))
    except ConfigError:  # its options are for more clients than these
        return True
    return not torch.allclose(told, mean(some))


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustConfig:
    """What a strategy that averages can be told of malicious clients.

    aggregator: a rule of fedzo.aggregation, or several joined by |. num_byzantine: how many of the
    answers to one exchange may be malicious. outlier_multiple: answers that are further from the
    cohort's median than so many times the others count as failures (strategies.core.screening); inf
    leaves them to the rule.
    """

    aggregator: str = "mean"
    num_byzantine: int = 0
    outlier_multiple: float = 3.0
    USED_WITH: ClassVar[UsedWith] = {
        "aggregator": where(
            ("aggregator", "num_byzantine"),
            _more_than_mean,
            "{1} above 0, where it else is the mean",
        ),
        "outlier_multiple": above("num_byzantine", 0),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_byzantine >= 0, "num_byzantine", self.num_byzantine, "0 or more")
        multiple = self.outlier_multiple
        require(multiple >= 1, "outlier_multiple", multiple, "1 or more, or inf")
        parse_aggregator(self.aggregator)

    @property
    def rule(self) -> Aggregator:
        """The rule that `aggregator` names."""
        return parse_aggregator(self.aggregator)

    def among_all(self, cohort: int, num_clients: int) -> "RobustConfig":
        """Return the settings for a table of all clients: a cohort is a sample of the liars too."""
        most = (num_clients - 1) // 2
        liars = min(most, math.ceil(self.num_byzantine * num_clients / cohort))
        return replace(self, num_byzantine=liars)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """A robust rule among the clients of a run.

    cohort: how many are asked in a round. answers: after how many the server steps. remembers:
    whether the rule is also asked about a table of all of them.
    """

    robust: RobustConfig
    cohort: int
    answers: int
    num_clients: int
    remembers: bool = False

    def withstands(self, num_answers: int, num_asked: int) -> bool:
        """Whether the rule bears the liars that may be among so many answers of those asked."""
        more = self.remembers and num_asked > self.cohort
        config = self.robust.among_all(self.cohort, self.num_clients) if more else self.robust
        try:
            config.rule.require(num_answers, config.num_byzantine)
        except ConfigError:
            return False
        return True

    def require(self) -> None:
        """Raise ConfigError where the rule cannot withstand so many liars among full answers.

        And, where it is asked about all clients, in proportion among them.
        """
        try:
            self.robust.rule.require(self.answers, self.robust.num_byzantine)
        except ConfigError as error:
            if self.answers == self.cohort:
                raise
            reason, _, _ = str(error).partition(";")
            raise ConfigError(
                f"the server steps with {self.answers} answers at a time, and {reason}; raise"
                " strategy.buffer (at most as many as work at a time), or lower"
                " strategy.num_byzantine"
            ) from error
        if self.remembers:
            everybody = self.robust.among_all(self.cohort, self.num_clients)
            everybody.rule.require(self.num_clients, everybody.num_byzantine)


def aggregate(
    vectors: Float[Tensor, "n d"],
    config: RobustConfig,
    plan: RoundPlan,
    *,
    purpose: str = "update",
    start: Float[Tensor, " l"] | None = None,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, " d"]:
    """Return the aggregate of the answers; weights count for the plain mean only.

    start: the last aggregate, which rules that learn from history look at. Raises TooFewAnswers
    where the rule cannot withstand num_byzantine of so many.
    """
    if config.rule.is_mean and config.num_byzantine == 0:
        return mean(vectors, weights=weights)
    generator = stream(plan.seed, "aggregation", purpose, plan.problem, plan.round_index)
    try:
        return config.rule(
            vectors,
            num_byzantine=config.num_byzantine,
            generator=generator,
            start=start if config.rule.learns else None,
        )
    except ConfigError as error:
        raise TooFewAnswers(f"round {plan.round_index}: {error}") from error


def agree(
    vectors: Float[Tensor, "n d"], config: RobustConfig, plan: RoundPlan, *, purpose: str
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " k"]]:
    """Return the n - f vectors nearest to the aggregate, moved so that it is their mean, and whose.

    For methods that need more of the answers than one vector, such as how much they differ; all
    vectors, as they are, where the rule is the mean.
    """
    if config.rule.is_mean:
        return vectors, torch.arange(len(vectors))
    result = aggregate(vectors, config, plan, purpose=purpose)
    finite = finite_rows(vectors)
    squares = squared_distances_to(vectors, result).where(finite, torch.inf).unsqueeze(0)
    count = min(int(finite.sum()), len(vectors) - config.num_byzantine)
    kept = nearest(squares, count)[0].sort().values
    return vectors[kept] + (result - vectors[kept].mean(dim=0)), kept


def of_all(config: RobustConfig, plan: RoundPlan) -> RobustConfig:
    """Return the settings for a table of all clients."""
    return config.among_all(len(plan.cohort), plan.num_clients)


def latest(
    config: RobustConfig, result: Float[Tensor, " d"], before: Float[Tensor, " l"]
) -> Float[Tensor, "*r"]:
    """Return what a strategy keeps after an aggregate, for rules that look at the last one."""
    return result if config.rule.learns else before


def remembered(config: RobustConfig, x: Float[Tensor, " d"]) -> Float[Tensor, " l"]:
    """Return the aggregate before the first round: zero for rules with a history, else nothing."""
    return torch.zeros_like(x) if config.rule.learns else x.new_empty(0)

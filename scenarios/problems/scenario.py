"""What a scenario is: the clients' world, the problems posed in it, and settings that suit it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fedzo.config import Scalar
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.problem import Problem
from fedzo.protocol.questions.anchored import AnchorConfig
from fedzo.protocol.questions.private import ClippedConfig
from fedzo.protocol.questions.training_config import GradientConfig, MomentumConfig
from fedzo.records.history import RoundRecord
from fedzo.used_with import one_of, other_than, unknown, where

Draw = Callable[[Path, Sequence[Float[Tensor, " d"]], Sequence[RoundRecord]], None]
"""Writes a figure to a path, from the solution of every problem and the history."""


@runtime_checkable
class Scenario(Protocol):
    """An environment with problems: what engine and driver need, and what is reported."""

    @property
    def num_clients(self) -> int: ...

    @property
    def num_problems(self) -> int: ...

    @property
    def noise_std(self) -> float: ...

    @property
    def black_box(self) -> bool:
        """Whether gradients are refused by nature."""
        ...

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        """Return the objectives of these clients for one problem."""
        ...

    def problem(self, index: int) -> Problem:
        """Return a problem; they are solved one after the other."""
        ...

    @property
    def summarize(self) -> Callable[[Sequence[RoundRecord]], dict[str, float]]:
        """Metrics of a whole run from the last record of every problem."""
        ...

    @property
    def draw(self) -> Draw | None:
        """A picture of the solutions, if the scenario has one of its own."""
        ...


@runtime_checkable
class HasModules(Protocol):
    """A scenario whose objectives may be modules, to be moved where they are."""

    def placed(self) -> Problem:
        """Return the problem of that; raises ConfigError where they are no modules."""
        ...


JUDGED_HERE = where("scenario", unknown, "a {} whose clients judge x: attack, custom or remote")
"""For strategy.judges and min_judges, where the simulation knows F."""
QUERIED = (
    other_than("rule", "first_order", "coded", "peer_gradient"),
    one_of("client.gradient", "zeroth_order"),
)
"""For the noise of values, where F is known: it reaches those alone that clients are asked for."""
BOUNDLESS = where(
    "scenario", unknown, "a {} with a box: others than classification, finetune and regression"
)
"""For what clients do at the ends of a box, where there is none."""

Suggestions = Mapping[type, Mapping[str, Scalar]]
"""Settings of a question -> dotted setting -> value that suits a scenario better than the default.

The questions of a strategy are known by the settings that its clients take: `ZerothOrderConfig`.
"""

WITHOUT_GRADIENTS: Suggestions = {
    MomentumConfig: {"client.gradient": "zeroth_order"},
    AnchorConfig: {"client.gradient": "zeroth_order"},
    GradientConfig: {"client.gradient": "zeroth_order"},
    ClippedConfig: {"client.gradient": "zeroth_order", "strategy.unit": "client"},
}
"""What suits objectives that can only be queried, whatever they are."""


def mean_metrics(last: Sequence[RoundRecord]) -> dict[str, float]:
    """Average the last metrics over problems."""
    names = last[0].metrics if last else {}
    return {name: sum(r.metrics[name] for r in last) / len(last) for name in names}

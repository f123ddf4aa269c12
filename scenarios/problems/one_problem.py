"""What scenarios of a single problem have in common, and the problem of which F is known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from fedzo.objectives.modules import flatten_parameters
from fedzo.objectives.problem import Bring, Report
from scenarios.problems.scenario import Draw, Suggestions, mean_metrics


class OneProblem:
    """Defaults of a scenario with one problem, whose objectives may have gradients."""

    num_problems = 1
    summarize = staticmethod(mean_metrics)
    draw: Draw | None = None
    black_box = False
    default_clients: ClassVar[int] = 5
    default_rounds: ClassVar[int] = 50
    suggested: ClassVar[Suggestions] = {}


@dataclass(frozen=True, slots=True)
class KnownInPlace:
    """A problem whose x is a module's parameters, of which the simulation has the like.

    judge: says of the module, as it is then, what is to be reported.
    """

    module: nn.Module
    judge: Callable[[], Report]
    lower: float = -float("inf")
    upper: float = float("inf")
    index: int = 0
    asks_clients: bool = False

    @property
    def initial_x(self) -> Float[Tensor, " d"]:
        """A vector without numbers."""
        return flatten_parameters(self.module).to("meta")

    def report(self, x: Float[Tensor, " d"], values: Float[Tensor, " n"] | None) -> Report:
        return self.judge()

    def report_in_place(self, bring_: Bring, values: Float[Tensor, " n"] | None) -> Report:
        bring_(self.module)
        return self.judge()


@dataclass(frozen=True, slots=True)
class KnownProblem:
    """A problem whose x the simulation judges by itself, so that reporting costs no query.

    image: see fedzo.objectives.problem; None where nobody says.
    """

    initial_x: Float[Tensor, " d"]
    judge: Callable[[Float[Tensor, " d"]], Report]
    lower: float = -float("inf")
    upper: float = float("inf")
    index: int = 0
    asks_clients: bool = False
    image: bool | None = None

    def report(self, x: Float[Tensor, " d"], values: Float[Tensor, " n"] | None) -> Report:
        return self.judge(x)

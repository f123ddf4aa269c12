"""An objective asked a few times before a run: what it is, and whether mu resolves a difference.

    noise         standard deviation of f(x), x the start, over all answers there
    difference    max - min of f(x + mu u), f(x), f(x - mu u), u a random unit vector
    rounding      the distance from f(x) to the next number of its type

A difference is resolved where it exceeds five times the larger of noise and rounding.
Cost: 4 queries; 8 where the two at the start differ; a gradient where numpy computes nothing.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require
from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.objective import CallableObjective, Maximize, Objective
from fedzo.objectives.oracle import Oracle
from fedzo.origin import place_of_code
from fedzo.protocol.questions.training_config import ZerothOrderConfig
from fedzo.randomness import stream
from fedzo.records.facts import Fact, ShownByFacts
from scenarios.problems.custom import CustomConfig, CustomScenario, MakeObjective

USUAL_MU = ZerothOrderConfig().mu
RESOLVED = 5.0
"""Times the noise that a difference must be: three answers of pure noise span 4.1 at 1 %."""
AGAIN = 4
"""Further answers at the start of an objective that is noisy."""
_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Checked(ShownByFacts):
    """What a few queries and a gradient have shown of an objective.

    kind: its class. lower, upper: the outermost bounds. start: its first numbers. seconds: a query,
    of three in one request; first_seconds: of the very first. floor: the larger of noise and
    rounding. examples: None without. batched: whether its code gets all points of a request at
    once. gradients: how many were tried.
    """

    kind: str
    dim: int
    lower: float
    upper: float
    start: tuple[float, ...]
    value: float
    seconds: float
    first_seconds: float
    noise: float
    mu: float
    difference: float
    floor: float
    has_gradient: bool
    examples: int | None
    batched: bool
    queries: int
    gradients: int

    @property
    def resolved(self) -> bool:
        """Whether a difference over mu can be told from noise and rounding."""
        return self.difference > RESOLVED * self.floor

    @property
    def better_mu(self) -> float | None:
        """A radius at which a difference that grows with it would be seen; None where it is."""
        if self.resolved:
            return None
        grow = RESOLVED * self.floor / self.difference if self.difference else 0.0
        return float(f"{self.mu * max(2 * grow, 10.0):.1g}")

    def facts(self) -> Sequence[Fact]:
        return [*self.rows(), *self.verdicts().items()]

    def rows(self) -> Sequence[Fact]:
        """Return what the objective is."""
        more = ", ..." if self.dim > len(self.start) else ""
        free = self.lower == -math.inf and self.upper == math.inf
        return [
            ("objective", self.kind),
            ("dim", f"{self.dim:,}"),
            ("box", "none" if free else f"within [{self.lower:g}, {self.upper:g}]"),
            ("start", f"{', '.join(f'{x:g}' for x in self.start)}{more}"),
            ("value there", f"{self.value:.10g}"),
            ("seconds a query", f"{self.seconds:.3g} (the first: {self.first_seconds:.3g})"),
            ("gradients", "yes" if self.has_gradient else "no: a black box"),
            ("examples", "none" if self.examples is None else f"{self.examples:,}"),
            ("batched", "yes" if self.batched else "no: its code gets one point at a time"),
        ]

    def verdicts(self) -> dict[str, str]:
        """Return what was found out about noise and mu, in words."""
        agree = "none: two answers at the start are equal"
        told = {"noise": f"about {self.noise:.3g} (standard deviation)" if self.noise else agree}
        seen = f"a step of {self.mu:g} changes F by {self.difference:.3g}"
        floor = "the noise" if self.noise == self.floor else "rounding"
        ratio = self.difference / self.floor
        times = f"{ratio:.3g} times {floor}" if math.isfinite(ratio) else f"far above {floor}"
        if self.resolved:
            return {**told, "mu": f"{seen}, {times}: seen"}
        remedy = (
            f"raise it: --set client.mu={self.better_mu:g}, of methods that ask around x (fedzo)"
        )
        return {**told, "mu": f"{seen}, {times}: not seen; {remedy}"}

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {**asdict(self), "resolved": self.resolved, "better_mu": self.better_mu}


def check(
    objective: str | Objective | MakeObjective, *, client: int = 0, mu: float = USUAL_MU
) -> Checked:
    """Ask an objective at its start, and say what it is.

    objective: file.py:function, package.module:function, a function of a client id, or an objective
    itself. client: whose. Raises ConfigError for one that cannot be asked or answers no number,
    with the user's own file and line.
    """
    require(client >= 0, "client", client, "0 or more")
    require(0 < mu < math.inf, "mu", mu, "a positive number")
    named = objective if isinstance(objective, str) else ""
    make = None if named else _maker(objective)
    scenario = CustomScenario(
        CustomConfig(objective=named), num_clients=client + 1, seed=0, make_objective=make
    )
    cohort = scenario.cohort([client], 0)
    asked: Objective = cohort.objectives[0]  # type: ignore[attr-defined]
    x = scenario.problem(0).initial_x
    oracle = Oracle(cohort, may_skip=False)
    at_start, near, first_s, together_s = _answers(oracle, asked, x, mu)
    value, noise = at_start[0], float(np.std(at_start, ddof=1))
    single = _single([*at_start, *near])
    rounding = float(np.spacing(np.float32(value))) if single else math.ulp(value)
    has_gradient = _has_gradient(oracle, asked, x)
    counts = oracle.counts()
    return Checked(
        kind=" of ".join(dict.fromkeys(type(o).__name__ for o in (asked, _inner(asked)))),
        dim=asked.dim,
        lower=float(torch.as_tensor(asked.lower).min()),
        upper=float(torch.as_tensor(asked.upper).max()),
        start=tuple(x[:_SHOWN].tolist()),
        value=value,
        seconds=together_s / 3,
        first_seconds=first_s,
        noise=noise,
        mu=mu,
        difference=max(near) - min(near),
        floor=max(noise, abs(rounding)),
        has_gradient=has_gradient,
        examples=getattr(asked, "num_examples", None),
        batched=getattr(_inner(asked), "batched", True),
        queries=counts["queries"][0],
        gradients=counts["gradients"][0],
    )


def _maker(objective: Any) -> MakeObjective:
    return (lambda _client: objective) if isinstance(objective, Objective) else objective


def _answers(
    oracle: Oracle, asked: Objective, x: Float[Tensor, " d"], mu: float
) -> tuple[list[float], list[float], float, float]:
    """Return values at x, values near it with one at it, and the seconds of two requests."""
    drawn = torch.from_numpy(stream(0, "check").standard_normal(asked.dim)).to(x)
    step = mu * drawn / drawn.norm()
    (value,), first_s = _timed(oracle, asked, [x])
    near, together_s = _timed(oracle, asked, [x, x + step, x - step])
    at_start = [value, near[0]]
    if near[0] != value:
        at_start += _timed(oracle, asked, [x] * AGAIN)[0]
    return at_start, near, first_s, together_s


def _inner(asked: Objective) -> Objective:
    """Return what Maximize is around."""
    return asked.objective if isinstance(asked, Maximize) else asked


def _timed(
    oracle: Oracle, asked: Objective, points: list[Float[Tensor, " d"]]
) -> tuple[list[float], float]:
    """Return the values at points in one request, and the seconds it took."""
    begun = time.perf_counter()
    values = oracle.value(torch.stack(points).unsqueeze(0))[0].tolist()
    seconds = time.perf_counter() - begun
    if oracle.failures:
        text = f"the objective, asked at its start, failed: {oracle.failures[0]}"
        raise ConfigError(_with_place(text, asked))
    return values, seconds


def _with_place(text: str, asked: Objective) -> str:
    """Return a text that ends in a line of the user's, if there is one."""
    place = place_of_code(getattr(_inner(asked), "function", type(asked).value))
    return text if ", line " in text or not place else f"{text} ({place})"


def _has_gradient(oracle: Oracle, asked: Objective, x: Float[Tensor, " d"]) -> bool:
    """Try a gradient, which numpy has none of; raises nothing where there is none."""
    if isinstance(_inner(asked), CallableObjective):
        return False
    try:
        oracle.gradient(x.unsqueeze(0))
    except ObjectiveError:
        return False
    return not oracle.failures


def _single(values: list[float]) -> bool:
    """Return whether all values are numbers of float32, as those of most modules are."""
    return all(float(np.float32(value)) == value for value in values)

"""The oracle: the only way from a client rule to its objectives.

It counts every query of every client, stops exactly at a budget, keeps queries inside the box, adds
observation noise, and lets no non-finite value through unnoticed.

A *query* is one objective value at one point asked of one client, whatever data are behind it. A
*gradient* is one autograd evaluation at one point of one client. *Examples* are what stands behind
them: one for each example whose loss is evaluated or differentiated at one point. Nothing else is
counted, and nothing that is asked of an objective by a rule bypasses the count.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.errors import ConfigError, RunError
from fedzo.finite import all_finite
from fedzo.objectives.asking import Asking, OnFailure
from fedzo.objectives.box import is_bounded, project
from fedzo.objectives.cohort import CohortObjective, cohort_gradient, gradient_and_product
from fedzo.objectives.looped_cohort import LoopedCohort
from fedzo.objectives.objective import Objective

__all__ = ["BoundsPolicy", "NonFinitePolicy", "Oracle", "project"]

NonFinitePolicy = Literal["fail", "skip"]
BoundsPolicy = Literal["clip", "allow"]


class Oracle:
    """Answers a rule's questions about the objectives of n clients.

    query_budget: most queries a client may be asked; None is no limit.
    noise: standard deviation of Gaussian observation noise, drawn from `noise_generators` [n].
    non_finite: "fail" makes a client that answers NaN or inf a failed client; "skip" hands NaN on
    to the estimator, which leaves that direction out. Both count them in `non_finite`.
    may_skip: whether the rule has the setting non_finite, so that the remedy may name it.
    on_failure: what happens with a point at which a client's code raises (fedzo.objectives.asking);
    pool: who asks several clients at a time.
    out_of_bounds: "clip" projects each queried point onto the box; "allow" asks it as it is.
    """

    def __init__(
        self,
        cohort: CohortObjective,
        *,
        query_budget: int | None = None,
        noise_std: float = 0.0,
        noise_generators: Sequence[np.random.Generator] = (),
        non_finite: NonFinitePolicy = "fail",
        out_of_bounds: BoundsPolicy = "clip",
        may_skip: bool = True,
        on_failure: OnFailure = "fail",
        pool: Executor | None = None,
    ) -> None:
        self.cohort = cohort
        self.failures = cohort.failures
        self._budget = query_budget
        self._noise_std = noise_std
        self._noise_generators = noise_generators
        self._non_finite = non_finite
        self._may_skip = may_skip
        self.saw_non_finite = False
        self._clip = out_of_bounds == "clip" and is_bounded(cohort.lower, cohort.upper)
        self._asked = 0
        self._differentiated = 0
        self._examples = torch.zeros(cohort.num_clients, dtype=torch.int64)
        self._sizes: Tensor | None = None
        self._stopped_at: dict[int, tuple[int, int, int]] = {}
        self._non_finite_counts: dict[int, int] = {}
        self._asking: Asking = getattr(cohort, "asking", None) or Asking()
        self._asking.on_failure, self._asking.pool = on_failure, pool
        self._asking.may_ask = self._may_ask_again
        self._again: dict[int, int] = {}

    @property
    def unheard(self) -> dict[int, str]:
        """Why those have failed of whom every point was left out, by position."""
        return self._asking.unheard

    @property
    def is_noisy(self) -> bool:
        """Whether noise is added to values."""
        return self._noise_std > 0

    @property
    def remaining(self) -> int | float:
        """Queries that each client may still be asked; infinite without a budget."""
        return float("inf") if self._budget is None else self._budget - self._asked

    def value(
        self, x: Float[Tensor, "n q d"], *, of: CohortObjective | None = None
    ) -> Float[Tensor, "n q"]:
        """Return values in float64, NaN for failed clients; `of` is a minibatch of the cohort.

        Raises RunError when the budget does not cover the q points; then nothing is asked.
        """
        self._require_dim(x)
        self.spend(x.shape[1], of)
        if self._again:
            self._stop_spent(x.shape[1])
        with torch.no_grad():
            values = (of or self.cohort).value(self.asked_at(x))
        if self._asking.again:
            self._count_again()
        return self._observed(values if values.dtype == torch.float64 else values.double())

    def told(
        self,
        queries: int,
        ask: Callable[[int, Objective], Float[Tensor, " q"]],
        *,
        of: CohortObjective | None = None,
    ) -> Float[Tensor, "n q"]:
        """Return what `ask` gets out of every client's objective by so many queries.

        It is called with the client's position and objective. For objectives that know where they
        are asked: x is no argument. Otherwise as `value`. Raises ConfigError for objectives in a
        box, where nobody projects x, or in one tensor program.
        """
        part = of or self.cohort
        if not isinstance(part, LoopedCohort):
            raise ConfigError(
                "clients that share one tensor program cannot be asked in place; use the scenario"
                " custom with a ModuleObjective for each client"
            )
        if self._clip:
            raise ConfigError("x in place is kept in no box; leave out lower and upper")
        self.spend(queries, of)
        with torch.no_grad():
            values = part.told_by(ask, queries)
            return self._observed(values)

    def gradient(
        self, x: Float[Tensor, "n d"], *, of: CohortObjective | None = None
    ) -> Float[Tensor, "n d"]:
        """Return exact gradients by autograd; raises ObjectiveError for a black box."""
        self._require_dim(x)
        self.count_gradients(1, of=of)
        gradient = cohort_gradient(of or self.cohort, self.asked_at(x))
        self.inspect(gradient, "gradient")
        return gradient

    def gradient_and_product(
        self,
        x: Float[Tensor, "n d"],
        along: Float[Tensor, "n d"],
        *,
        of: CohortObjective | None = None,
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Return exact gradients, and products of Hessians with vectors; two gradients a client."""
        self._require_dim(x)
        self.count_gradients(2, of=of)
        gradient, product = gradient_and_product(of or self.cohort, self.asked_at(x), along)
        self.inspect(torch.cat([gradient, product], dim=1), "gradient")
        return gradient, product

    def count_gradients(self, number: int, *, of: CohortObjective | None = None) -> None:
        """Count gradients that a compiled loop has taken by itself, `of` a minibatch of a step."""
        self._differentiated += number
        self._count_examples(number, of)

    def spend(self, queries: int, of: CohortObjective | None = None) -> None:
        """Count queries of every client, before whoever asks them does.

        Raises RunError when the budget does not cover them.
        """
        if queries > self.remaining:
            raise RunError(
                f"{queries} queries asked with {self.remaining} of {self._budget} left a client;"
                " raise query_budget or ask fewer directions"
            )
        self._asked += queries
        self._count_examples(queries, of)

    def inspect(self, answers: Float[Tensor, "n k"], what: str) -> None:
        """Note clients that raised or answered something non-finite."""
        if all_finite(answers):
            return
        self.saw_non_finite = True
        bad = ~torch.isfinite(answers)
        for position in bad.any(dim=1).nonzero().flatten().tolist():
            if position in self._stopped_at:
                continue
            if position not in self.failures and not self._report(position, answers, bad, what):
                continue
            unasked = getattr(self.cohort, "unasked", {}).get(position, 0)
            examples = int(self._examples[position]) - unasked * self._sizes_asked(position)
            self._stopped_at[position] = (self._asked - unasked, self._differentiated, examples)

    def asked_at(self, x: Float[Tensor, "n *q d"]) -> Float[Tensor, "n *q d"]:
        """Return the points that are asked for these: those in the box, where it clips."""
        return self.project(x) if self._clip else x

    def project(self, x: Float[Tensor, "n *q d"]) -> Float[Tensor, "n *q d"]:
        """Project points onto the box."""
        return project(x, self.cohort.lower, self.cohort.upper)

    def counts(self) -> dict[str, list[int]]:
        """Return queries, gradients, examples and non-finite values by position in the cohort."""
        positions = range(self.cohort.num_clients)
        examples = self._examples.tolist()
        spent = [
            self._stopped_at.get(p, (self._asked, self._differentiated, examples[p]))
            for p in positions
        ]
        again = self._again
        return {
            "queries": [queries + again.get(p, 0) for p, (queries, _, _) in enumerate(spent)],
            "gradients": [gradients for _, gradients, _ in spent],
            "examples": [count for _, _, count in spent],
            "non_finite": [self._non_finite_counts.get(p, 0) for p in positions],
        }

    def _may_ask_again(self, position: int, queries: int) -> bool:
        """Return whether a client's own budget covers queries that are asked again.

        What others have asked again does not count: a client does the same in any company.
        """
        again = self._asking.again.get(position, 0)
        return self._budget is None or self._asked + again + queries <= self._budget

    def _stop_spent(self, queries: int) -> None:
        """Let clients fail whose budget does not cover a request beside what was asked again."""
        for position, again in self._again.items():
            over = self._budget is not None and self._asked + again > self._budget
            if over and position not in self.failures:
                self.failures[position] = (
                    f"{again} queries that were asked again have used up its part of the budget"
                )
                self.cohort.unasked[position] = queries  # type: ignore[attr-defined]

    def _count_again(self) -> None:
        """Count the examples of queries that were asked again; those of a failed client too."""
        for position, total in self._asking.again.items():
            more = total - self._again.get(position, 0)
            self._examples[position] += more * self._sizes_asked(position)
        self._again = dict(self._asking.again)

    def _observed(self, values: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
        """Return values with observation noise, NaN for those left out and of failed clients."""
        if self._noise_std > 0:
            values = values + self._noise_std * self._noise(values)
        lost = self._asking.lost(values)
        if lost is not None:
            self.saw_non_finite = True
            for position in lost.any(dim=1).nonzero().flatten().tolist():
                self._count_non_finite(position, int(lost[position].sum()))
            self.inspect(values.masked_fill(lost, 0.0), "value")
            values = values.masked_fill(lost, torch.nan)
        else:
            self.inspect(values, "value")
        return values.nan_to_num(torch.nan, torch.nan, torch.nan) if self.saw_non_finite else values

    def _require_dim(self, x: Float[Tensor, "n *q d"]) -> None:
        """Raise ConfigError, before anything is asked, for points of another size."""
        dim = self.cohort.dim
        if x.shape[-1] != dim:
            raise ConfigError(
                f"x has {x.shape[-1]} numbers and the objectives have dim {dim}; start from as many"
                " (of a module, the parameters that are trained: no frozen ones, no buffers)"
            )

    def _count_examples(self, number: int, of: CohortObjective | None) -> None:
        part = of or self.cohort
        if hasattr(part, "sizes"):
            self._sizes = part.sizes.cpu()
            self._examples = self._examples + number * self._sizes

    def _sizes_asked(self, position: int) -> int:
        """Return how many examples of a client stood behind a point of the last request."""
        return 0 if self._sizes is None else int(self._sizes[position])

    def _noise(self, values: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
        rows = [g.standard_normal(values.shape[1]) for g in self._noise_generators]
        return torch.from_numpy(np.stack(rows)).to(values)

    def _count_non_finite(self, position: int, found: int) -> None:
        counts = self._non_finite_counts
        counts[position] = counts.get(position, 0) + found

    def _report(self, position: int, answers: Float[Tensor, "n k"], bad: Tensor, what: str) -> bool:
        """Count a client's non-finite answers; return whether they make it a failed client."""
        found = int(bad[position].sum())
        self._count_non_finite(position, found)
        if self._non_finite == "skip" and what == "value":
            return False
        first = answers[position][bad[position]][0].item()
        hint = what == "value" and self._may_skip
        remedy = "; client.non_finite=skip leaves such queries out" if hint else ""
        self.failures[position] = (
            f"the objective returned a non-finite {what} ({first}),"
            f" {found} of {bad.shape[1]}{remedy}"
        )
        return True

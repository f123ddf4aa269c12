"""Metrics of your own: what a function of yours says of x beside F, such as a test accuracy.

`scenario.metrics` names it, or `federate(..., metrics=)` is given it. It runs where the run is
driven, whenever x is judged (`strategy.evaluate_every`), and costs no query.
"""

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.errors import ConfigError, RunError
from fedzo.failure import failure_of
from fedzo.objectives.modules import ModuleObjective, restore_parameters
from fedzo.objectives.objective import NO_NUMBER, Maximize, Objective, one_number
from fedzo.user_code import load_object

MeasureX = Callable[[Any], Mapping[str, float]]
"""A function of x, a float64 array [d], or of a module at x, where objectives are modules."""

TAKEN = frozenset({
    "ETA", "F", "anchor_batch_size", "answered", "best", "best_rounds", "best_value",
    "between_variance", "bytes", "bytes_down",
    "bytes_up", "client_queries", "clients", "clients_failed", "cohort_size", "disagreement",
    "duplicates", "engine", "epsilon", "epsilon_run", "examples", "failures", "final_value",
    "floats", "floats_down", "floats_up", "gradients", "initial_value", "jobs", "judges",
    "late", "left", "metrics", "nodes", "noise_std", "non_finite", "out", "partial",
    "participation_bias", "peer_floats", "privacy", "problem", "queries", "round", "round_index",
    "rounds", "scenario", "seconds", "seed", "shortened", "standard_error", "stops", "strategy",
    "value", "virtual", "virtual_s", "virtual_seconds", "wall_s", "wasted", "within_variance",
})  # fmt: skip
"""Names under which a run tells something itself."""


class OwnMetrics:
    """A function of the user's, asked about x, or about a module at x, with no gradients.

    It gets a module of its own in evaluation mode, made as client 0's.
    """

    def __init__(self, function: MeasureX, objective: Objective | None = None) -> None:
        while isinstance(objective, Maximize):
            objective = objective.objective
        self._function = function
        found = objective.module if isinstance(objective, ModuleObjective) else None
        self._module = copy.deepcopy(found)  # now: clients may move theirs

    def at(self, x: Float[Tensor, " d"]) -> Mapping[str, float]:
        """Return the metrics of x; raises RunError where the function fails, or tells none."""
        if self._module is None:
            return self._told(x.detach().cpu().double().numpy().copy())
        restore_parameters(self._module, x)
        return self._told(self._module.eval())

    def in_place(self, bring_: Callable[[nn.Module], None]) -> Mapping[str, float]:
        """Return the metrics of the x that `bring_` moves the module to."""
        assert self._module is not None  # nothing else is moved in place
        bring_(self._module)
        return self._told(self._module.eval())

    def _told(self, subject: Any) -> Mapping[str, float]:
        try:
            with torch.no_grad():
                told = self._function(subject)
        except BaseException as error:  # the user's code may raise anything
            raise RunError(f"the metrics raised {failure_of(error)}") from error
        if not isinstance(told, Mapping) or not all(isinstance(name, str) for name in told):
            raise RunError(
                f"the metrics are {told!r:.80}; return a dict of names and numbers, such as"
                ' {"test_accuracy": 0.5}'
            )
        return {_name(name): _number(name, value) for name, value in told.items()}


def load_metrics(reference: str) -> MeasureX:
    """Load "file.py:function" or "module:function"; raises ConfigError where there is none."""
    function = load_object(reference, what="scenario.metrics")
    if not callable(function):
        raise ConfigError(
            f"scenario.metrics={reference!r} is {function!r:.60}; it must be a function of x, or of"
            " a module, that returns a dict of names and numbers"
        )
    return function  # type: ignore[no-any-return]


def _name(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_]\w*", name) is None:
        raise RunError(f"the metrics name {name!r:.60}; use letters, digits and _")
    if name in TAKEN:
        raise RunError(f"the metrics name {name}, which a run tells itself; choose another name")
    return name


def _number(name: str, value: Any) -> float:
    try:
        return one_number(value)
    except NO_NUMBER as error:
        raise RunError(f"the metric {name} is {value!r:.60}; it must be one real number") from error

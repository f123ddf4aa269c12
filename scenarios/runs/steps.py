"""What an experiment's settings say of the steps that x takes, and whether x can hold them."""

import warnings
from dataclasses import replace

import torch

from fedzo.errors import ConfigError, FedzoWarning
from fedzo.objectives.problem import OpenProblem, Problem
from fedzo.used_with import conditions_of, unmet
from scenarios.problems.scenario import HasModules, Scenario
from scenarios.runs.experiment import Experiment
from scenarios.runs.names import strategy_entry
from strategies.core.standstill import Standstill

_RATES = ("strategy.local_lr", "strategy.server_lr", "strategy.initial_step")
_PATIENT = 20
"""Rounds after which methods that only compare values, or step late, may be said to stand still."""


def watch(experiment: Experiment) -> Standstill:
    """Return the callback that says, once a run, that x stands still."""
    adam = getattr(experiment.config("client"), "optimizer", "") == "adam"
    local_lr = getattr(experiment.config("strategy"), "local_lr", 0.0)
    found = Standstill(
        num_rounds=experiment.num_rounds, mu=_mu(experiment), adam_lr=local_lr if adam else 0.0
    )
    found = replace(found, rate=_rate(experiment))
    waits = strategy_entry(experiment.strategy).rule in ("values", "coded")
    return replace(found, patience=_PATIENT) if waits else found


def _rate(experiment: Experiment) -> str:
    """Return the setting of the run's step that has an effect."""
    conditions = conditions_of(type(experiment.config("strategy")), "strategy")
    used = (
        name
        for name in _RATES
        if name in experiment.settings and unmet(name, experiment.settings, conditions) is None
    )
    return next(used, "the step of the method")


def posed(scenario: Scenario, index: int, experiment: Experiment) -> Problem:
    """Return a problem as the experiment's strategy takes it: with x as a vector, or in place.

    The start is in float64 where float32 cannot tell x + mu u from x. That is said in a
    FedzoWarning. Raises ConfigError for a scenario without modules where x is in place.
    """
    if strategy_entry(experiment.strategy).rule != "in_place":
        return _resolved(scenario.problem(index), experiment)
    if not isinstance(scenario, HasModules):
        raise ConfigError(
            f"strategy {experiment.strategy!r} moves torch modules in place, and scenario"
            f" {experiment.scenario!r} has none; use --scenario custom with a ModuleObjective, or"
            " --scenario finetune"
        )
    return scenario.placed()


def _resolved(problem: Problem, experiment: Experiment) -> Problem:
    mu = _mu(experiment)
    if not mu or not isinstance(problem, OpenProblem) or problem.initial_x.dtype != torch.float32:
        return problem
    x = problem.initial_x
    if bool((x + mu / 16 != x).all()):
        return problem
    warnings.warn(
        f"float32 cannot tell x + mu u from x at client.mu={mu:g} and x up to"
        f" {float(x.abs().max()):.3g}: the run computes in float64; give a float64 start, or raise"
        " client.mu",
        FedzoWarning,
        stacklevel=2,
    )
    return replace(problem, initial_x=x.double())


def _mu(experiment: Experiment) -> float:
    """Return the smoothing radius; 0 for clients that take exact gradients or have none."""
    client = experiment.config("client")
    exact = getattr(client, "gradient", "") == "exact"
    return 0.0 if exact else float(getattr(client, "mu", 0.0))

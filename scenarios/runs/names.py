"""Every name that a user can type, and what it stands for: the literal tables.

What an entry names is imported when it is used, so that a list of names needs nothing else.
"""

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedzo.errors import ConfigError
from fedzo.runtime.engine_configs import FlowerConfig, InProcessConfig, RayConfig, SuperLinkConfig
from fedzo.user_code import is_reference
from scenarios.runs.entries import ScenarioEntry, StrategyEntry
from scenarios.runs.methods import STRATEGIES

if TYPE_CHECKING:
    from scenarios.runs.own_strategy import OwnStrategy

__all__ = [
    "ENGINES",
    "SCENARIOS",
    "STRATEGIES",
    "require_black_box",
    "require_names",
    "strategy_entry",
]

SCENARIOS: Mapping[str, ScenarioEntry] = {
    "quadratic": ScenarioEntry(
        "scenarios.problems.quadratic",
        "QuadraticScenario",
        "QuadraticConfig",
        "heterogeneous quadratics with a known optimum",
    ),
    "multimodal": ScenarioEntry(
        "scenarios.problems.multimodal",
        "MultimodalScenario",
        "MultimodalConfig",
        "Ackley and Levy functions, shifted for each client",
    ),
    "attack": ScenarioEntry(
        "scenarios.problems.attack",
        "AttackScenario",
        "AttackConfig",
        "one perturbation against black-box image classifiers",
    ),
    "adversarial_policy": ScenarioEntry(
        "scenarios.problems.adversarial_policy",
        "AdversarialPolicyScenario",
        "AdversarialPolicyConfig",
        "a policy that beats trained players of a game, who can only be played against",
    ),
    "attribution": ScenarioEntry(
        "scenarios.problems.attribution",
        "AttributionScenario",
        "AttributionConfig",
        "which words decide what black-box classifiers say, by replacing them",
    ),
    "metric": ScenarioEntry(
        "scenarios.problems.metric",
        "MetricScenario",
        "MetricConfig",
        "a classifier's macro-F1 and the like, which have no gradient",
    ),
    "classification": ScenarioEntry(
        "scenarios.problems.classification",
        "ClassificationScenario",
        "ClassificationConfig",
        "a small network on class-skewed shards",
    ),
    "finetune": ScenarioEntry(
        "scenarios.problems.finetune",
        "FinetuneScenario",
        "FinetuneConfig",
        "the last layers of a trained network, moved to new data",
    ),
    "custom": ScenarioEntry(
        "scenarios.problems.custom",
        "CustomScenario",
        "CustomConfig",
        "your own objectives: --set scenario.objective=file.py:function",
    ),
    "regression": ScenarioEntry(
        "scenarios.problems.regression",
        "RegressionScenario",
        "RegressionConfig",
        "a small network on tables of records",
    ),
    "remote": ScenarioEntry(
        "scenarios.problems.remote",
        "RemoteScenario",
        "RemoteConfig",
        "objectives that only the nodes of a deployment know",
    ),
}

ENGINES: dict[str, tuple[type, str]] = {
    "inprocess": (InProcessConfig, "all clients in this process, as stacked tensors"),
    "ray": (RayConfig, "actors with fractions of CPUs and GPUs, on this machine or a cluster"),
    "superlink": (SuperLinkConfig, "a deployment: inside `flwr run` and `fedzo deploy` only"),
    "flower": (FlowerConfig, "Flower's own simulation: a ClientApp and messages for each client"),
}


def strategy_entry(name: str) -> "StrategyEntry | OwnStrategy":
    """Return what a name of the table, or a reference such as mine.py:Mine, stands for.

    Raises ConfigError for a name that is in no table, and for what is no strategy.
    """
    if is_reference(name):
        from scenarios.runs.own_strategy import own_strategy  # it needs torch, the tables do not

        return own_strategy(name)
    if name not in STRATEGIES:
        raise _unknown("strategy", name, STRATEGIES, "; or your own, file.py:Name")
    return STRATEGIES[name]


def require_names(scenario: str, strategy: str, engine: str) -> None:
    """Raise ConfigError for a name that is in no table."""
    if scenario not in SCENARIOS:
        file = scenario.rstrip(":")
        more = f"; your own is {file}:NAME" if file.endswith(".py") else ""
        more += f"; it is a strategy: --strategy {scenario}" if scenario in STRATEGIES else ""
        raise _unknown("scenario", scenario, SCENARIOS, more)
    strategy_entry(strategy)
    if engine not in ENGINES:
        raise _unknown("engine", engine, ENGINES)


def _unknown(kind: str, name: str, table: Mapping[str, object], more: str = "") -> ConfigError:
    near = difflib.get_close_matches(name, table, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}? " if near else ""
    return ConfigError(f"unknown {kind} {name!r}; {hint}allowed: {', '.join(table)}{more}")


def require_black_box(scenario: str, strategy: str, *, exact: bool) -> None:
    """Raise ConfigError for a strategy that needs gradients, of a scenario that has none.

    exact: whether its clients are to differentiate, as client.gradient says.
    """
    if exact or strategy_entry(strategy).rule in ("first_order", "coded", "peer_gradient"):
        remedy = "set client.gradient=zeroth_order" if exact else "use fedzo"
        raise ConfigError(
            f"strategy {strategy!r} needs gradients and {scenario!r} is a black box; {remedy}"
        )

"""Every name that a user can type, and what it stands for: the literal tables.

What an entry names is imported when it is used, so that a list of names needs nothing else.
"""

from collections.abc import Mapping

from fedzo.errors import ConfigError
from fedzo.runtime.engine_configs import FlowerConfig, InProcessConfig, RayConfig, SuperLinkConfig
from scenarios.runs.entries import ScenarioEntry
from scenarios.runs.methods import STRATEGIES

__all__ = ["ENGINES", "SCENARIOS", "STRATEGIES", "require_black_box", "require_names"]

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


def require_names(scenario: str, strategy: str, engine: str) -> None:
    """Raise ConfigError for a name that is in no table."""
    for kind, name, table in (
        ("scenario", scenario, SCENARIOS),
        ("strategy", strategy, STRATEGIES),
        ("engine", engine, ENGINES),
    ):
        if name not in table:
            raise ConfigError(f"unknown {kind} {name!r}; allowed: {', '.join(table)}")


def require_black_box(scenario: str, strategy: str, *, exact: bool) -> None:
    """Raise ConfigError for a strategy that needs gradients, of a scenario that has none.

    exact: whether its clients are to differentiate, as client.gradient says.
    """
    if exact or STRATEGIES[strategy].rule == "first_order":
        remedy = "set client.gradient=zeroth_order" if exact else "use fedzo"
        raise ConfigError(
            f"strategy {strategy!r} needs gradients and {scenario!r} is a black box; {remedy}"
        )

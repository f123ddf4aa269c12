"""Every name that a user can type, and what it stands for: the one literal table."""

from collections.abc import Callable
from dataclasses import dataclass

from clients.rules import RULE_CONFIGS
from fedzo.config import require
from scenarios.attack import AttackConfig, AttackScenario
from scenarios.classification import ClassificationConfig, ClassificationScenario
from scenarios.custom import CustomConfig, CustomScenario
from scenarios.quadratic import QuadraticConfig, QuadraticScenario
from strategies.base import RoundStrategy
from strategies.fedavg import FedAvg, FedAvgConfig

AnyScenario = QuadraticScenario | AttackScenario | ClassificationScenario | CustomScenario


@dataclass(frozen=True, slots=True)
class ScenarioEntry:
    """A scenario's settings, its class, and one line about it."""

    config: type
    build: type[AnyScenario]
    line: str


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """A strategy's settings, its class, the client rule it asks for, and one line about it."""

    config: type
    build: Callable[..., RoundStrategy]  # type: ignore[type-arg]
    rule: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessConfig:
    """Settings of the engine `inprocess`.

    strict: whether every exchange goes through the message codec and protobuf. chunk_size: clients
    that a rule sees at once, 0 chooses it.
    """

    strict: bool = False
    chunk_size: int = 0

    def __post_init__(self) -> None:
        require(self.chunk_size >= 0, "chunk_size", self.chunk_size, "0 (automatic) or more")


SCENARIOS: dict[str, ScenarioEntry] = {
    "quadratic": ScenarioEntry(
        QuadraticConfig, QuadraticScenario, "heterogeneous quadratics with a known optimum"
    ),
    "attack": ScenarioEntry(
        AttackConfig, AttackScenario, "one perturbation against black-box image classifiers"
    ),
    "classification": ScenarioEntry(
        ClassificationConfig, ClassificationScenario, "a small network on class-skewed shards"
    ),
    "custom": ScenarioEntry(
        CustomConfig,
        CustomScenario,
        "your own objectives: --set scenario.objective=file.py:function",
    ),
}

STRATEGIES: dict[str, StrategyEntry] = {
    "fedavg": StrategyEntry(
        FedAvgConfig, FedAvg, "first_order", "mean of clients' gradient steps (McMahan 2017)"
    ),
    "fedzo": StrategyEntry(
        FedAvgConfig, FedAvg, "zeroth_order", "mean of clients' zeroth-order steps (Fang 2022)"
    ),
}

ENGINES: dict[str, tuple[type, str]] = {
    "inprocess": (InProcessConfig, "all clients in this process, as stacked tensors"),
}

__all__ = ["ENGINES", "RULE_CONFIGS", "SCENARIOS", "STRATEGIES", "InProcessConfig"]

"""What the tables of names say of a scenario and of a strategy, imported when it is used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedzo.config import Scalar

if TYPE_CHECKING:
    from fedzo.protocol.question import Question
    from fedzo.runtime.local import Rule
    from strategies.core.base import RoundStrategy


ON_A_CLOCK: Mapping[str, Scalar] = {"fleet.preset": "mobile", "fleet.query_s": 0.05}
"""Asynchronous methods need times; phones that take 50 ms a query, unless others are given."""


NO_PRIVATE_FZOOS: Mapping[str, str] = dict.fromkeys(
    ("strategy.epsilon", "strategy.delta"),
    "FZooS has no private form. Its clients send values (improved), or feature weights and updates"
    " (the others); values have no bound on what one record changes in them, and weights are as"
    " many as features, 10,000 in the paper, so noise for a clipped mean of them would drown it;"
    " use diff2_zo or dp_fedzo",
)
"""Why FZooS has no settings of privacy."""


@dataclass(frozen=True, slots=True)
class ScenarioEntry:
    """A scenario's module, its class and that of its settings, and one line about it."""

    module: str
    class_name: str
    config_name: str
    line: str

    @property
    def build(self) -> Any:
        """The class."""
        return getattr(import_module(self.module), self.class_name)

    @property
    def config(self) -> type[Any]:
        """The class of its settings."""
        found: type[Any] = getattr(import_module(self.module), self.config_name)
        return found


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """A strategy's module, what makes it, its settings, the client rule, and one line about it.

    preset: dotted settings that make the class this method. refused: dotted settings that one might
    expect -> why there are none.
    """

    module: str
    build_name: str
    config_name: str
    rule: str
    line: str
    preset: Mapping[str, Scalar] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def build(self) -> "Callable[..., RoundStrategy[Any]]":
        """What makes the strategy of its settings and those of its clients."""
        found: Callable[..., RoundStrategy[Any]] = getattr(
            import_module(self.module), self.build_name
        )
        return found

    @property
    def config(self) -> type[Any]:
        """The class of its settings."""
        found: type[Any] = getattr(import_module(self.module), self.config_name)
        return found

    @property
    def client_config(self) -> type[Any]:
        """The class of its clients' settings."""
        found: type[Any] = import_module("clients.rules").RULE_CONFIGS[self.rule]
        return found

    @property
    def rules(self) -> "Mapping[type[Question[Any]], Rule]":
        """Rules for questions of its own: none, for the clients know all of fedzo's."""
        return {}

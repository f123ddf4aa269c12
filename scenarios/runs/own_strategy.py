"""A strategy of the user's, by reference or as a class: it says itself what a table says of others.

    class Mine(ConfiguredStrategy[MineConfig, ZerothOrderConfig, MineState]):
        client_config = ZerothOrderConfig      # settings of the clients: which rule answers
        preset = {"client.mu": 0.01}           # optional: settings over the defaults of both
        rules = {Vote: answer_vote}            # optional: rules for questions of its own

The class of its settings is the first in the brackets, or the attribute `config`. A RoundStrategy
that takes no settings has none: its class is called without arguments.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from clients.rules import RULE_CONFIGS
from fedzo.config import Scalar, config_values, parts_of
from fedzo.errors import ConfigError
from fedzo.protocol.question import Question
from fedzo.runtime.local import Rule
from fedzo.user_code import load_kept, reference_of
from scenarios.runs.methods import STRATEGIES
from strategies.core.base import RoundStrategy
from strategies.core.configured import ConfiguredStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSettings:
    """Settings of a strategy, or of its clients, where there are none."""


@dataclass(frozen=True, slots=True)
class OwnStrategy:
    """An entry as those of the table, made of what a class says."""

    kind: type[RoundStrategy[Any]]

    @property
    def config(self) -> type[Any]:
        """The class of its settings; raises ConfigError where it does not say which."""
        found = getattr(self.kind, "config", None) or _first_in_brackets(self.kind)
        if found is not None or not issubclass(self.kind, ConfiguredStrategy):
            return found or NoSettings
        raise ConfigError(
            f"strategy {self.kind.__name__} does not say the class of its settings; write"
            f" class {self.kind.__name__}(ConfiguredStrategy[Settings, ClientSettings, State])"
        )

    @property
    def client_config(self) -> type[Any]:
        """The class of its clients' settings."""
        found: type[Any] = getattr(self.kind, "client_config", NoSettings)
        return found

    @property
    def rule(self) -> str:
        """The rule whose settings its clients have; "own" for others."""
        return next((n for n, each in RULE_CONFIGS.items() if each is self.client_config), "own")

    @property
    def line(self) -> str:
        """The first line of its docstring."""
        return next(iter((self.kind.__doc__ or "").strip().splitlines()), "")

    @property
    def preset(self) -> Mapping[str, Scalar]:
        """Settings over the defaults."""
        found: Mapping[str, Scalar] = getattr(self.kind, "preset", {})
        return found

    @property
    def refused(self) -> Mapping[str, str]:
        """Settings that there are not, and why: none."""
        return {}

    @property
    def rules(self) -> Mapping[type[Question[Any]], Rule]:
        """Rules for questions of its own."""
        found: Mapping[type[Question[Any]], Rule] = getattr(self.kind, "rules", {})
        return found

    def build(self, config: Any, *, client: Any) -> RoundStrategy[Any]:
        """Return the strategy of its settings and those of its clients."""
        made: Any = self.kind
        built: RoundStrategy[Any] = (
            made() if self.config is NoSettings else made(config, client=client)
        )
        return built


def own_strategy(reference: str) -> OwnStrategy:
    """Return the strategy that a reference names; raises ConfigError where it names none."""
    found = load_kept(reference, what="strategy")
    if not isinstance(found, type) or not issubclass(found, RoundStrategy):
        raise ConfigError(
            f"strategy {reference!r} is {found!r:.60}; name a class that derives from"
            " strategies.core.configured.ConfiguredStrategy (`fedzo new strategy NAME` writes one)"
        )
    missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
    if missing:
        raise ConfigError(f"strategy {reference!r} has no {missing}; write them")
    return OwnStrategy(found)


def named(strategy: object) -> tuple[str, Mapping[str, Scalar]]:
    """Return the name of a strategy given as an object, and the settings that it was made with.

    A text is a name already; a class is named by the table, or by where it lies; an object by its
    class and its settings. Raises ConfigError for an object that was made with something else.
    """
    if isinstance(strategy, str):
        return strategy, {}
    if isinstance(strategy, type):
        return _name_of(strategy, getattr(strategy, "client_config", NoSettings)), {}
    if isinstance(strategy, ConfiguredStrategy):
        name = _name_of(type(strategy), type(strategy._client))
        return name, _made_with(strategy, STRATEGIES[name].refused if name in STRATEGIES else {})
    if isinstance(strategy, RoundStrategy) and not getattr(strategy, "__dict__", {}):
        return reference_of(type(strategy)), {}
    raise ConfigError(
        f"strategy {strategy!r:.60} cannot be written down; give a name, a class, or an object of a"
        " ConfiguredStrategy, whose settings can"
    )


def _name_of(kind: type, client_config: type) -> str:
    """Return a class's name in the table, where it is fedzo's, or the reference to it."""
    for name, entry in STRATEGIES.items():
        same = (entry.module, entry.build_name) == (kind.__module__, kind.__name__)
        if same and not entry.preset and entry.client_config is client_config:
            return name
    return reference_of(kind)


def _made_with(
    strategy: ConfiguredStrategy[Any, Any, Any], refused: Collection[str]
) -> dict[str, Scalar]:
    """Return all settings of a strategy and its clients by dotted name."""
    made = {"strategy": strategy._config, "client": strategy._client}
    return {
        full: value
        for section, config in made.items()
        for name, value in config_values(config).items()
        if (full := f"{section}.{name}") not in refused
    }


def _first_in_brackets(kind: type) -> type[Any] | None:
    """Return A of class Kind(ConfiguredStrategy[A, ...]), also where a parent says so."""
    for each in kind.__mro__:
        for base in vars(each).get("__orig_bases__", ()):
            first = next(iter(get_args(base)), None)
            if isinstance(first, type) and (parts_of(first) or hasattr(first, "__slots__")):
                return first
    return None

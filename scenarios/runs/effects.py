"""Which settings of an experiment have an effect: what all its configs say of it, put together."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fedzo.config import Scalar, default_values, field_names
from fedzo.errors import ConfigError
from fedzo.used_with import Condition, conditions_of, no_effect, unmet

_EVERYTHING = "client.*"
ALWAYS = ("on_failure",)
"""Settings of clients that concern every question, whatever else a strategy asks them."""


@dataclass(frozen=True)
class Effects:
    """The settings of a run by dotted name, resolved.

    heads: the names that it was made of. usual: what settings are where nobody says anything, if
    that is not the config's default.
    """

    classes: Mapping[str, type]
    values: Mapping[str, Scalar]
    heads: Mapping[str, Scalar]
    usual: Mapping[str, Scalar]

    @cached_property
    def conditions(self) -> Mapping[str, tuple[Condition, ...]]:
        """Setting -> what must hold so that it has an effect."""
        found: dict[str, tuple[Condition, ...]] = {}
        for section, cls in self.classes.items():
            for key, told in conditions_of(cls, section).items():
                for name in self._named(key):
                    found[name] = (*found.get(name, ()), *told)
        return found

    @property
    def settings(self) -> dict[str, Scalar]:
        """All settings but those that the chosen variant of a strategy does not know."""
        return {
            name: value
            for name, value in self.values.items()
            if (unmet := self._unmet(name)) is None or "strategy.variant" not in unmet.settings
        }

    def without(self, given: Collection[str]) -> dict[str, str]:
        """Return those of the given settings that have no effect -> a sentence about it.

        One that says what holds anyway is none of them.
        """
        everything = {**self.heads, **self.values}
        return {
            name: no_effect(name, everything[name], unmet, everything)
            for name in given
            if everything[name] != self._anyway(name) and (unmet := self._unmet(name)) is not None
        }

    def require(self, given: Collection[str]) -> None:
        """Raise ConfigError where one of the given settings has no effect."""
        for sentence in self.without(given).values():
            raise ConfigError(sentence)

    def _unmet(self, name: str) -> Condition | None:
        return unmet(name, {**self.heads, **self.values}, self.conditions)

    def _anyway(self, name: str) -> Scalar | None:
        if name in self.usual:
            return self.usual[name]
        section, _, setting = name.partition(".")
        return default_values(self.classes[section]).get(setting)

    def _named(self, key: str) -> Iterable[str]:
        if key != _EVERYTHING:
            return [key]
        return [
            f"client.{name}" for name in field_names(self.classes["client"]) if name not in ALWAYS
        ]


def involved(name: str, conditions: Mapping[str, Sequence[Condition]]) -> set[str]:
    """Return the settings on which it depends whether a setting has an effect."""
    found, open_names = set[str](), [name]
    while open_names:
        for told in conditions.get(open_names.pop(), ()):
            new = {n for c in (told, *told.others) for n in c.settings} - found
            found |= new
            open_names += new
    return found

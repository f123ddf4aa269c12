"""Settings that have an effect only with some values of others; a config says so once.

    class ServerConfig(RateConfig):
        USED_WITH: ClassVar[UsedWith] = {"server_momentum": one_of("server_optimizer", "sgd")}

A bare name is of the same section; `strategy.local_steps` of another one; `scenario`, `strategy`,
`engine` and `rule` are what a run was made of. Several conditions must all hold. A condition on a
setting that is not used itself does not hold, and one on a setting that a run does not have does.
`client.*` stands for all settings of the clients. What a config says of a setting of its parts, or
of the class that it inherits, takes the place of what these say.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedzo.config import Scalar, config_values, default_values
from fedzo.errors import ConfigError
from fedzo.parts import parts_of

HEADS = ("scenario", "strategy", "engine", "rule")
"""What a run is made of: names that belong to no section."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of some settings.

    told: the condition in words, {} for the names. holds gets their values, None for a setting
    that a run does not have.
    """

    settings: tuple[str, ...]
    holds: Callable[..., bool]
    told: str
    others: tuple["Condition", ...] = ()
    """Alternatives."""

    def words(self) -> str:
        """Return the condition in words."""
        own = self.told.format(*self.settings)
        return ", or ".join([own, *(other.words() for other in self.others)])


UsedWith = Mapping[str, Condition | Sequence[Condition]]


def where(settings: str | tuple[str, ...], holds: Callable[..., bool], told: str) -> Condition:
    """Return a condition on one setting, or on several together."""
    return Condition((settings,) if isinstance(settings, str) else settings, holds, told)


def one_of(setting: str, *values: Scalar) -> Condition:
    """Return the condition that a setting has one of these values."""
    told = "{}=" + " or ".join(shown(value) for value in values)
    return where(setting, lambda value: value is None or value in values, told)


def other_than(setting: str, *values: Scalar) -> Condition:
    """Return the condition that a setting has none of these values."""
    told = "{} other than " + " and ".join(shown(value) for value in values)
    return where(setting, lambda value: value not in values, told)


def above(setting: str, bound: float) -> Condition:
    """Return the condition that a number is above a bound."""
    return where(setting, lambda value: value is None or value > bound, f"{{}} above {bound:g}")


def below(setting: str, bound: float) -> Condition:
    """Return the condition that a number is below a bound."""
    return where(setting, lambda value: value is None or value < bound, f"{{}} below {bound:g}")


def unknown(value: Scalar | None) -> bool:
    """Hold for a setting that a run does not have, and for no value of it."""
    return value is None


def any_of(first: Condition, *others: Condition) -> Condition:
    """Return the condition that one of these holds."""
    return replace(first, others=(*first.others, *others))


def shown(value: Scalar) -> str:
    """Return a value as a user types it."""
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


def conditions_of(cls: type, section: str = "") -> dict[str, tuple[Condition, ...]]:
    """Return the conditions on a config's settings, by dotted name where a section is given."""
    found: dict[str, tuple[Condition, ...]] = {}
    for name, told in _declared(cls).items():
        conditions = (told,) if isinstance(told, Condition) else tuple(told)
        if conditions:
            found[_dotted(name, section)] = tuple(_in(c, section) for c in conditions)
    return found


def unmet(
    name: str,
    settings: Mapping[str, Scalar],
    conditions: Mapping[str, Sequence[Condition]],
) -> Condition | None:
    """Return the condition for which a setting has no effect; None where it has one."""
    for condition in conditions.get(name, ()):
        failed = [_failed(name, c, settings, conditions) for c in (condition, *condition.others)]
        if None not in failed:
            return failed[0] if not condition.others else condition
    return None


def no_effect(
    name: str, value: Scalar, condition: Condition, settings: Mapping[str, Scalar]
) -> str:
    """Return the sentence about a setting that has no effect."""
    asked = dict.fromkeys(n for c in (condition, *condition.others) for n in c.settings)
    known = [n for n in asked if n in settings and n != name]
    now = " and ".join(f"{n}={shown(settings[n])}" for n in known)
    whose = ""
    if "rule" in known and "strategy" in settings:
        now += f" (that of strategy={settings['strategy']})"
        whose = "; `fedzo list` shows the rule of every strategy"
    return (
        f"{name}={shown(value)} has no effect with {now}; leave it out, or use it with"
        f" {condition.words()}{whose}"
    )


def require_used(config: object) -> None:
    """Raise ConfigError for a setting without effect, unless it has its default."""
    require_effective(config, default_values(type(config)), section="", beside={})


def require_effective(
    config: object, usual: Mapping[str, Scalar], *, section: str, beside: Mapping[str, Scalar]
) -> None:
    """Raise ConfigError for a setting without effect that is not as usual.

    usual: what settings are where nobody says anything. section: before their names. beside: what
    conditions ask of other sections, by dotted name.
    """
    values, conditions = config_values(config), conditions_of(type(config), section)
    told = {**beside, **{_dotted(name, section): value for name, value in values.items()}}
    for name, value in values.items():
        full = _dotted(name, section)
        condition = None if value == usual.get(name) else unmet(full, told, conditions)
        if condition is not None:
            raise ConfigError(no_effect(full, value, condition, told))


def _declared(cls: type) -> dict[str, Condition | Sequence[Condition]]:
    """Return what a class says, over what its parts and the classes above it say."""
    found: dict[str, Condition | Sequence[Condition]] = {}
    for kind in parts_of(cls).values():
        found.update(_declared(kind))
    for base in reversed(inspect.getmro(cls)):
        found.update(vars(base).get("USED_WITH", {}))
    return found


def _failed(
    about: str,
    condition: Condition,
    settings: Mapping[str, Any],
    conditions: Mapping[str, Sequence[Condition]],
) -> Condition | None:
    """Return the condition where it does not hold, or that of a setting that it is about."""
    for name in condition.settings:
        deeper = None if name == about else unmet(name, settings, conditions)
        if deeper is not None:
            return deeper
    held = condition.holds(*(settings.get(name) for name in condition.settings))
    return None if held else condition


def _in(condition: Condition, section: str) -> Condition:
    return replace(
        condition,
        settings=tuple(_dotted(name, section) for name in condition.settings),
        others=tuple(_in(other, section) for other in condition.others),
    )


def _dotted(name: str, section: str) -> str:
    return name if not section or "." in name or name in HEADS else f"{section}.{name}"


def is_finite(setting: str) -> Condition:
    """Return the condition that a number is finite."""
    return where(setting, lambda value: value is None or value < math.inf, "{} below inf")

"""Settings made of parts: nested in code, flat for whoever types them.

    @composed
    class FedAvgConfig:
        rounds: RoundConfig = part(RoundConfig)
        local: LocalConfig = part(LocalConfig, local_steps=5)
        safeguard: bool = False

`FedAvgConfig(local_lr=0.1)` and `replace(config, local_lr=0.1)` reach the part that has the
setting, `config.local.local_lr` and `config.local_lr` read it, and the loader (fedzo.config) sees
all settings in one list. A part may be composed itself. No two settings share a name. Types are
checked when one is made, before its own `__post_init__`.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, dataclass_transform

from fedzo.config import PART, check_types, field_names, parts_of

__all__ = ["composed", "find_part", "has_part", "need_part", "part", "parts_of"]

PartT = TypeVar("PartT")
ConfigT = TypeVar("ConfigT")


def part(cls: type[PartT], **defaults: Any) -> Any:
    """Return a field for a part, with defaults of its own."""
    made = cls(**defaults)
    return field(default_factory=lambda: made, metadata={PART: cls})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field, part))
def composed(cls: type[ConfigT]) -> type[ConfigT]:
    """Make a frozen dataclass of parts and scalars, which takes and shows all settings flat."""
    require_more = vars(cls).get("__post_init__")

    def __post_init__(self: Any) -> None:
        check_types(self)
        if require_more:
            require_more(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    made: Any = dataclass(frozen=True, slots=True, kw_only=True)(cls)
    fill = made.__init__

    def __init__(self: Any, **values: Any) -> None:
        fill(self, **_gathered(made, values))

    made.__init__ = __init__
    for name, kind in parts_of(made).items():
        for setting in field_names(kind):
            setattr(made, setting, property(_reader(name, setting)))
    result: type[ConfigT] = made
    return result


def has_part(cls: type, kind: type) -> bool:
    """Return whether a config class is this part, or has it somewhere."""
    return issubclass(cls, kind) or any(has_part(p, kind) for p in parts_of(cls).values())


def find_part(config: object, kind: type[PartT]) -> PartT | None:
    """Return this part of a config, wherever it is; None where it has none."""
    if isinstance(config, kind):
        return config
    inner = (find_part(getattr(config, name), kind) for name in parts_of(type(config)))
    return next((found for found in inner if found is not None), None)


def need_part(config: object, kind: type[PartT]) -> PartT:
    """Return this part of a config; raises TypeError where it has none."""
    found = find_part(config, kind)
    if found is None:
        raise TypeError(f"{type(config).__name__} has no {kind.__name__} among its parts")
    return found


def _gathered(cls: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a class's own fields: flat settings go into the parts that have them."""
    left = dict(values)
    for entry in fields(cls):
        kind = entry.metadata.get(PART)
        if kind is None:
            continue
        told = {name: left.pop(name) for name in field_names(kind) if name in left}
        if told:
            made: Any = entry.default_factory
            left[entry.name] = replace(left.get(entry.name) or made(), **told)
    return left


def _reader(name: str, setting: str) -> Any:
    def read(config: Any) -> Any:
        return getattr(getattr(config, name), setting)

    return read

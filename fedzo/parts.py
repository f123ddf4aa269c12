"""Settings made of parts: nested in code, flat for whoever types them.

    @composed
    class FedAvgConfig:
        rounds: RoundConfig = part(RoundConfig)
        local: LocalConfig = part(LocalConfig, local_steps=5)
        safeguard: bool = False

`FedAvgConfig(local_lr=0.1)` and `replace(config, local_lr=0.1)` reach the part that has the
setting, `config.local.local_lr` and `config.local_lr` read it, and the loader (fedzo.config) sees
all settings in one list. A part may be composed itself. No two settings share a name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, dataclass_transform

PartT = TypeVar("PartT")
ConfigT = TypeVar("ConfigT")
_PART = "part"


def part(cls: type[PartT], **defaults: Any) -> Any:
    """Return a field for a part, with defaults of its own."""
    made = cls(**defaults)
    return field(default_factory=lambda: made, metadata={_PART: cls})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field, part))
def composed(cls: type[ConfigT]) -> type[ConfigT]:
    """Make a frozen dataclass of parts and scalars, which takes and shows all settings flat."""
    made: Any = dataclass(frozen=True, slots=True, kw_only=True)(cls)
    fill = made.__init__

    def __init__(self: Any, **values: Any) -> None:
        fill(self, **_gathered(made, values))

    made.__init__ = __init__
    for name, kind in parts_of(made).items():
        for setting in names_of(kind):
            setattr(made, setting, property(_reader(name, setting)))
    result: type[ConfigT] = made
    return result


def parts_of(cls: type) -> Mapping[str, type]:
    """Return the parts of a config class, by the name of their field."""
    known: Mapping[str, Any] = vars(cls).get("__dataclass_fields__", {})
    return {n: f.metadata[_PART] for n, f in known.items() if _PART in f.metadata}


def names_of(cls: type) -> list[str]:
    """Return the names of all settings, those of parts in their places."""
    parts, known = parts_of(cls), [entry.name for entry in fields(cls)]
    return [s for name in known for s in (names_of(parts[name]) if name in parts else [name])]


def has_part(cls: type, kind: type) -> bool:
    """Return whether a config class is this part, or has it somewhere."""
    return issubclass(cls, kind) or any(has_part(p, kind) for p in parts_of(cls).values())


def find_part(config: object, kind: type[PartT]) -> PartT | None:
    """Return this part of a config, wherever it is; None where it has none."""
    if isinstance(config, kind):
        return config
    inner = (find_part(getattr(config, name), kind) for name in parts_of(type(config)))
    return next((found for found in inner if found is not None), None)


def _gathered(cls: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a class's own fields: flat settings go into the parts that have them."""
    left = dict(values)
    for entry in fields(cls):
        kind = entry.metadata.get(_PART)
        if kind is None:
            continue
        told = {name: left.pop(name) for name in names_of(kind) if name in left}
        if told:
            made: Any = entry.default_factory
            left[entry.name] = replace(left.get(entry.name) or made(), **told)
    return left


def _reader(name: str, setting: str) -> Any:
    def read(config: Any) -> Any:
        return getattr(getattr(config, name), setting)

    return read

"""Settings: frozen dataclasses of scalars, filled from dotted names, TOML or a message.

Every field is a number, a string, a bool or a Literal of them. Types are checked by pydantic,
ranges by the dataclass itself in `__post_init__`.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import pydantic

from fedzo.errors import ConfigError

Scalar = bool | int | float | str
_STARTS_WITH_NAME = re.compile(r"[\w .+]+=")
ConfigT = TypeVar("ConfigT")


def build_config(cls: type[ConfigT], values: Mapping[str, Scalar], *, section: str) -> ConfigT:
    """Make a `cls` from named values, defaults for the rest.

    Raises ConfigError for an unknown name (proposing the nearest valid one), a wrong type or a
    value out of range; `section` is the prefix that the user typed.
    """
    for name in values:
        if name not in field_names(cls):
            raise unknown_key(f"{section}.{name}", [f"{section}.{n}" for n in field_names(cls)])
    try:
        return pydantic.TypeAdapter(cls).validate_python(dict(values))
    except pydantic.ValidationError as error:
        raise ConfigError(_first_problem(error, section)) from error


def take_config(cls: type[ConfigT], values: Mapping[str, Scalar]) -> ConfigT:
    """Make a `cls` from those of the values that it has fields for, without checking types."""
    return cls(**{name: values[name] for name in field_names(cls) if name in values})


def config_values(config: object) -> dict[str, Scalar]:
    """Return a config's fields as a mapping."""
    assert is_dataclass(config)
    return {f.name: getattr(config, f.name) for f in fields(config)}


def field_names(cls: type) -> list[str]:
    """Return the names of a config's fields."""
    return list(vars(cls)["__dataclass_fields__"])


def parse_setting(text: str) -> tuple[str, Scalar]:
    """Split `key=value`; a value that is not a TOML scalar is a string.

    Raises ConfigError when there is no `=`.
    """
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not key=value; write for example client.mu=0.01")
    try:
        value: Any = tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        value = raw
    return key.strip(), value if isinstance(value, bool | int | float | str) else raw


def unknown_key(key: str, valid: Iterable[str], *, what: str = "setting") -> ConfigError:
    """Return the error that names the nearest valid keys."""
    options = sorted(valid)
    same_ending = [option for option in options if option.rpartition(".")[2] == key]
    near = same_ending or difflib.get_close_matches(key, options, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(options) or 'none'}"
    return ConfigError(f"unknown {what} {key}; {hint}")


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise ConfigError unless the condition on a setting holds."""
    if not condition:
        raise ConfigError(f"{name}={value} must be {allowed}")


def require_nonnegative(name: str, value: float) -> None:
    """Raise ConfigError unless a setting is finite and not below zero."""
    require(0 <= value < math.inf, name, value, "0 or more, and finite")


def _first_problem(error: pydantic.ValidationError, section: str) -> str:
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        text = str(cause)
        return f"{section}.{text}" if _STARTS_WITH_NAME.match(text) else text
    name = ".".join(str(part) for part in first["loc"])
    return f"{section}.{name}={first['input']!r} is not allowed: {first['msg']}"

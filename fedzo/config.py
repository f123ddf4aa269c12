"""Settings: frozen dataclasses of scalars, filled from dotted names, TOML or a message.

Every field is a number, a string, a bool, a Literal of them, or a name in a table (OneOf). What a
user types is converted by pydantic; types and ranges are checked by the dataclass itself in
`__post_init__`, whoever makes it.
"""

import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from numbers import Integral, Real
from os import PathLike, fspath
from types import FunctionType, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
import pydantic

from fedzo.errors import ConfigError
from fedzo.number import read_number
from fedzo.user_code import reference_of

Scalar = bool | int | float | str
Given = Scalar | Callable[..., Any]
"""A setting in Python, where a function or class stands for the text that names it."""


@dataclass(frozen=True, slots=True, eq=False)
class OneOf:
    """An annotation of a text that must be a name in a table, which may grow.

    fits: which of its entries are allowed. `Annotated[str, OneOf(TABLE)]` is what a field has.
    """

    table: Mapping[str, Any]
    fits: Callable[[Any], bool] = bool

    @property
    def names(self) -> list[str]:
        """The names that are allowed now."""
        return [name for name, entry in self.table.items() if self.fits(entry)]


PART = "part"
"""What the field of a part says of its class."""
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
    hints = setting_hints(cls)
    typed = {name: _converted(f"{section}.{name}", v, hints[name]) for name, v in values.items()}
    try:
        return cls(**typed)
    except ConfigError as error:
        raise ConfigError(_in_section(error, section)) from error


def take_config(cls: type[ConfigT], values: Mapping[str, Scalar]) -> ConfigT:
    """Make a `cls` from those of the values that it has fields for, without checking types."""
    return cls(**{name: values[name] for name in field_names(cls) if name in values})


def config_values(config: object) -> dict[str, Scalar]:
    """Return a config's settings as a mapping, those of its parts too."""
    return {name: getattr(config, name) for name in field_names(type(config))}


def default_values(cls: type) -> dict[str, Scalar]:
    """Return the settings of a config that says nothing, without those that have no default."""
    found: dict[str, Any] = {}
    for entry in fields(cls):
        if entry.default_factory is not MISSING:
            made = entry.default_factory()
            found.update(config_values(made) if entry.name in parts_of(cls) else {entry.name: made})
        elif entry.default is not MISSING:
            found[entry.name] = entry.default
    return found


def field_names(cls: type) -> list[str]:
    """Return the names of a config's settings, those of its parts in their places."""
    return [*_field_names(cls)]


@functools.cache
def _field_names(cls: type) -> tuple[str, ...]:
    parts = parts_of(cls)
    each = [_field_names(parts[name]) if name in parts else (name,) for name in _fields(cls)]
    return tuple(name for names in each for name in names)


def parts_of(cls: type) -> dict[str, type]:
    """Return the parts of a config class (fedzo.parts), by the name of their field."""
    return {n: f.metadata[PART] for n, f in _fields(cls).items() if PART in f.metadata}


def setting_hints(cls: type) -> dict[str, Any]:
    """Return the annotations of a config's settings, those of its parts too."""
    hints, parts = _hints(cls), parts_of(cls)
    own = {name: hint for name, hint in hints.items() if name not in parts}
    return {**{n: h for kind in parts.values() for n, h in setting_hints(kind).items()}, **own}


def in_words(settings: Mapping[str, Given]) -> dict[str, Scalar]:
    """Return settings with references in the place of functions and classes."""
    named: Any = settings
    if not isinstance(named, Mapping) or not all(isinstance(name, str) for name in named):
        raise ConfigError(f"settings={settings!r:.60} must be a dict of dotted names and values")
    return {name: reference_of(v) if callable(v) else v for name, v in settings.items()}


def unknown_key(key: str, valid: Iterable[str], *, what: str = "setting") -> ConfigError:
    """Return the error that names the nearest valid keys."""
    options = sorted(valid)
    same_ending = [option for option in options if option.rpartition(".")[2] == key]
    near = same_ending or difflib.get_close_matches(key, options, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(options) or 'none'}"
    return ConfigError(f"unknown {what} {key}; {hint}")


def check_types(config: object) -> None:
    """Raise ConfigError unless every field of a config holds what its annotation allows.

    NaN is no number. Numbers of other libraries become Python's, paths texts, and functions and
    classes the references that name them.
    """
    cls: type = type(config)
    for name, hint in _hints(cls).items():
        value = getattr(config, name)
        fitted = checked(name, value, hint)
        if type(fitted) is not type(value):
            object.__setattr__(config, name, fitted)


def checked(name: str, value: Any, hint: Any) -> Any:
    """Return a value as an annotation wants it, as `check_types` does; raises ConfigError else."""
    fitted = _fitted(value, hint)
    if fitted is _MISFIT:
        shown = f"{value!r}" if isinstance(value, str) else f"{value!s:.60}"
        require(False, name, shown, _allowed(hint))
    return fitted


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise ConfigError unless the condition on a setting holds."""
    if not condition:
        raise ConfigError(f"{name}={value} must be {allowed}")


def as_seed(seed: object) -> int:
    """Return a seed as an int, of numpy's too; raises ConfigError for what is none."""
    whole: int = checked("seed", seed, int)
    require(0 <= whole < 2**63, "seed", whole, "0 or more, and below 2^63")
    return whole


def require_nonnegative(name: str, value: float) -> None:
    """Raise ConfigError unless a setting is finite and not below zero."""
    require(0 <= value < math.inf, name, value, "0 or more, and finite")


def _converted(name: str, value: Any, hint: Any) -> Any:
    """Return what was typed as the annotation wants it; raises ConfigError else."""
    try:
        return _adapter(hint).validate_python(_typed(name, value, hint))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        several = isinstance(value, str) and "," in value
        more = "; several values are for `fedzo sweep` and `fedzo compare --tune`" * several
        said = f"{name}={first['input']!r} is not allowed: {first['msg']}{more}"
        raise ConfigError(said) from error


@functools.cache
def _adapter(hint: Any) -> Any:
    return pydantic.TypeAdapter(hint)


def _in_section(error: ConfigError, section: str) -> str:
    """Return a config's complaint, with the section before the name of the setting."""
    text = str(error)
    return f"{section}.{text}" if _STARTS_WITH_NAME.match(text) else text


_MISFIT = object()


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Return the annotations of a config's fields."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: hints[name] for name in _fields(cls)}


@functools.cache
def _fields(cls: type) -> Mapping[str, Field[Any]]:
    """Return the fields of a dataclass; nothing of another class."""
    return {entry.name: entry for entry in fields(cls)} if is_dataclass(cls) else {}


def _fitted(value: Any, hint: Any) -> Any:
    """Return a value as the annotation wants it, or _MISFIT; what is no scalar is left alone."""
    if get_origin(hint) in (Union, UnionType):
        each = [_fitted(value, option) for option in get_args(hint)]
        return next((fitted for fitted in each if fitted is not _MISFIT), _MISFIT)
    if get_origin(hint) is Literal:
        return value if isinstance(value, str) and value in get_args(hint) else _MISFIT
    if hint is str:
        return _text(value)
    if get_origin(hint) is Annotated:
        return value if value in allowed_names(hint) else _MISFIT
    if hint is bool:
        return bool(value) if isinstance(value, bool | np.bool_) else _MISFIT
    if hint in (int, float):
        return _number(value, hint)
    plain = hint is NoneType or is_dataclass(hint)
    return value if not plain or isinstance(value, hint) else _MISFIT


def _text(value: Any) -> Any:
    """Return a text: of a path itself, of a function or class the reference that names it."""
    if isinstance(value, type | FunctionType):
        return reference_of(value)
    path = fspath(value) if isinstance(value, PathLike) else value
    return path if isinstance(path, str) else _MISFIT


def _number(value: Any, kind: Any) -> Any:
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, Integral if kind is int else Real
    ):
        return _MISFIT
    try:
        number = kind(value)
        if math.isnan(number):
            return _MISFIT
    except OverflowError:  # of a whole number too, which no float reaches
        return _MISFIT
    return value if isinstance(value, int) else number


def allowed_names(hint: Any) -> list[str]:
    """Return the texts that an annotation allows; nothing where it allows more than some names."""
    if get_origin(hint) is Literal:
        return [str(name) for name in get_args(hint)]
    if get_origin(hint) is Annotated:
        return [name for extra in hint.__metadata__ for name in extra.names]
    return []


def _allowed(hint: Any) -> str:
    """Say what an annotation allows."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_allowed(option) for option in get_args(hint))
    if get_origin(hint) in (Literal, Annotated):
        return ", ".join(allowed_names(hint))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return "left out" if hint is NoneType else words.get(hint, f"a {hint.__name__}")


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Return what was typed for pydantic to convert.

    30 may be a text and 8/255 a number, but true is none.
    """
    if isinstance(value, bool) and hint in (int, float):
        require(False, name, str(value).lower(), _allowed(hint))
    if hint is str and type(value) is int:
        return str(value)
    if isinstance(value, str) and "/" in value and hint in (float, float | None):
        return read_number(value, name=name)
    return _text(value) if isinstance(value, PathLike | type | FunctionType) else value

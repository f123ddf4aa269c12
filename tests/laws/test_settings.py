"""A law over all settings objects: whoever makes one, a wrong value is a ConfigError.

Found by walking the packages: settings that somebody adds are under the law without being named.
"""

import contextlib
import importlib
import inspect
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from fedzo.errors import ConfigError

_PACKAGES = ("fedzo", "clients", "strategies", "scenarios")
_ALSO = {"Adam", "Coordinates", "Partition", "Plan", "SGD", "Smoothing"}
_BETWEEN_PROGRAMS = {"OracleSettings", "CorrectionSettings", "VictimSettings"}
"""Filled by a server from settings that were checked; a client's messages are checked elsewhere."""
_NEEDED = {"num_clients": 2, "num_rounds": 1, "kind": "iid"}


def _settings_classes() -> Iterator[type]:
    for package in _PACKAGES:
        folder = importlib.import_module(package).__path__
        for found in pkgutil.walk_packages(folder, f"{package}."):
            for name, cls in vars(importlib.import_module(found.name)).items():
                if (
                    inspect.isclass(cls)
                    and cls.__module__ == found.name
                    and _is_settings(name, cls)
                ):
                    yield cls


def _is_settings(name: str, cls: type) -> bool:
    chosen = name.endswith(("Config", "Settings")) or name in _ALSO
    attacker = cls.__module__.startswith("fedzo.attacks.") and hasattr(cls, "search")
    usual = not name.startswith("_") and name not in _BETWEEN_PROGRAMS
    return usual and (chosen or attacker) and is_dataclass(cls) and _needs(cls) <= set(_NEEDED)


def _needs(cls: type) -> set[str]:
    return {
        entry.name
        for entry in fields(cls)
        if entry.default is MISSING and entry.default_factory is MISSING
    }


_CLASSES = [cls for cls in _settings_classes() if fields(cls)]
every_class = pytest.mark.parametrize("cls", _CLASSES, ids=lambda cls: cls.__name__)


def _hints(cls: type) -> list[tuple[str, Any]]:
    """Return name and annotation of every setting."""
    hints = get_type_hints(cls)
    return [(entry.name, hints[entry.name]) for entry in fields(cls)]


def _wrong(hint: Any) -> list[object]:
    """Return values that an annotation does not allow."""
    if get_origin(hint) is Literal:
        return ["?", get_args(hint)[0].upper() + "?", 1, True, None, [get_args(hint)[0]]]
    return {
        int: ["3", 2.5, 2.0, True, np.True_, None, math.nan, [1]],
        float: ["0.5", True, None, math.nan, np.float32("nan"), 10**400, 1j, [0.5]],
        bool: ["true", 1, 0, 1.0, None],
        str: [1, 1.0, True, None, b"x"],
    }.get(hint, [])


def _make(cls: type, **values: object) -> object:
    """Make settings past the type checker of the tests, which users do not have."""
    made: Any = cls(**{n: v for n, v in _NEEDED.items() if n in get_type_hints(cls)})
    for name, value in values.items():
        object.__setattr__(made, name, value)
    made.__post_init__()
    return made


@every_class
def test_a_value_of_a_wrong_type_is_refused_by_its_name(cls: type) -> None:
    for name, value in [(name, value) for name, hint in _hints(cls) for value in _wrong(hint)]:
        with pytest.raises(ConfigError, match=rf"\b{name}=") as caught:
            _make(cls, **{name: value})
        assert "must be" in str(caught.value)


@every_class
def test_any_number_is_taken_or_refused_in_words(cls: type) -> None:
    values = {int: [-1, 0, 10**30], float: [-1.0, -math.inf, math.inf, 0.0, 1e-320, 1e308]}
    for name, value in [(name, v) for name, hint in _hints(cls) for v in values.get(hint, [])]:
        with contextlib.suppress(ConfigError):
            assert getattr(_make(cls, **{name: value}), name) == value


@every_class
def test_numbers_of_other_libraries_become_those_of_python(cls: type) -> None:
    made, others = _make(cls), {int: np.int64, float: np.float64, bool: np.bool_}
    for name, hint in [(name, hint) for name, hint in _hints(cls) if hint in others]:
        default = getattr(made, name)
        same = getattr(_make(cls, **{name: others[hint](default)}), name)
        assert (same, type(same)) == (default, hint), name


def test_the_walk_finds_the_settings_of_every_kind() -> None:
    found = {cls.__name__ for cls in _CLASSES}
    assert {"AttackSettings", "FaultConfig", "FZooSConfig", "RayConfig", "Plan", "Edge"} <= found
    assert len(found) >= 60

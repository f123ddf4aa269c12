"""Reading experiments and comparisons from TOML files."""

import math
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any

from fedzo.config import field_names, unknown_key
from fedzo.errors import ConfigError
from scenarios.runs.experiment import Experiment
from scenarios.runs.experiment_file import is_untouched

LARGEST, DEEPEST = 1 << 20, 60
"""Bytes of a file of settings and parts of a key, at most."""


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """What a file says of a comparison; empty where it is silent."""

    experiment: dict[str, Any] = field(default_factory=lambda: {"settings": {}})
    strategies: Sequence[str] = ()
    seeds: Sequence[int] = ()
    at: Mapping[str, Sequence[float]] = field(default_factory=dict)


def read_experiment(path: Path) -> dict[str, Any]:
    """Read a TOML file into arguments of make_experiment; every key is optional.

    Raises ConfigError for a file that is missing, no TOML, or has unknown keys.
    """
    text = _text(path)
    return _experiment(_parse(text, path), text, path)


def read_comparison(path: Path) -> ComparisonPlan:
    """Read a TOML file that may hold strategies, seeds and positions beside an experiment's keys.

    The one strategy, or seed, of an experiment's file is the only one then. Raises ConfigError as
    read_experiment does.
    """
    text = _text(path)
    raw = _parse(text, path)
    strategies = _several(raw, "strategies", "strategy", path)
    seeds, at = _several(raw, "seeds", "seed", path), raw.pop("at", {})
    if not _all(strategies, str) or not _all(seeds, int):
        raise ConfigError(f"--config {path}: strategies must be a list of names, seeds of numbers")
    if not isinstance(at, dict) or not all(_all(numbers, int | float) for numbers in at.values()):
        raise ConfigError(f"--config {path}: [at] must hold lists of numbers by axis")
    return ComparisonPlan(_experiment(raw, text, path), strategies, seeds, at)


def _several(raw: dict[str, Any], name: str, one: str, path: Path) -> Any:
    """Take a list from a comparison's file, or the one that an experiment's file says."""
    if name in raw and one in raw:
        raise ConfigError(f"--config {path} holds {name} and {one}; leave one of them out")
    return [raw.pop(one)] if one in raw else raw.pop(name, [])


def parse_positions(texts: Sequence[str], *, option: str = "at") -> dict[str, list[float]]:
    """Split NAME=N,N,... each, as the options `--at` and `--reach` are written.

    Raises ConfigError for anything else.
    """
    form, example = {
        "at": ("AXIS=N,N,...", "queries=5000,10000"),
        "reach": ("METRIC=V,V,...", "test_accuracy=0.75,0.8"),
    }[option]
    positions: dict[str, list[float]] = {}
    for text in texts:
        axis, equals, numbers = text.partition("=")
        try:
            found = [float(number) for number in numbers.split(",") if number.strip()]
        except ValueError:
            found = []
        meant = all(math.isfinite(n) or (option == "at" and n == math.inf) for n in found)
        if not equals or not found or not meant:
            raise ConfigError(f"--{option} {text!r} is not {form}; write for example {example}")
        positions.setdefault(axis.strip(), []).extend(found)
    return positions


def parse_words(text: str) -> list[str]:
    """Split words at commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def parse_numbers(text: str) -> list[int]:
    """Split whole numbers at commas; raises ConfigError for anything else."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"--seeds {text!r} must be whole numbers separated by commas") from error


def _all(values: object, kind: type | UnionType) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _text(path: Path) -> str:
    """Return what a file holds; raises ConfigError for one that cannot be read."""
    try:
        if stat.S_ISFIFO(path.stat().st_mode) and not path.is_relative_to("/dev"):
            raise ConfigError(f"--config {path} is a named pipe; give a file")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from error
    if len(content) > LARGEST:
        raise ConfigError(f"--config {path} is longer than {LARGEST:,} bytes: no experiment is")
    try:
        return content.decode("utf-8-sig")
    except ValueError as error:
        raise ConfigError(f"--config {path} is no TOML: {error}") from error


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        # Python's reader takes time that grows with the square of a key's length.
        parts = re.split(r"[=\[\]{},#\n]", re.sub(r"\.{2,}", "", text))
        if max(part.count(".") for part in parts) > DEEPEST:
            raise ValueError("a key has too many parts")
        found = tomllib.loads(text)
        repr(found)  # a sentence about a value must be able to show it, however deep it is
        return found
    except (ValueError, RecursionError) as error:  # too many digits and brackets too
        raise ConfigError(f"--config {path} is no TOML: {error}") from error


def _experiment(raw: dict[str, Any], text: str, path: Path) -> dict[str, Any]:
    """Check the keys and types of a parsed file and flatten its settings.

    What a run has written, and nobody has edited, lists all settings, with an effect or without.
    """
    names = [name for name in field_names(Experiment) if name != "settings"]
    for key in raw:
        if key not in [*names, "set"]:
            raise unknown_key(key, [*names, "set"])
    sections = raw.pop("set", {})
    if not isinstance(sections, dict) or not all(isinstance(v, dict) for v in sections.values()):
        raise ConfigError(f"--config {path}: `set` must hold tables such as [set.client]")
    for key, value in raw.items():
        wanted = int if key in ("num_rounds", "num_clients", "seed", "query_budget") else str
        if type(value) is not wanted:
            kind = "a whole number" if wanted is int else "a text"
            raise ConfigError(f"--config {path}: {key}={value!r} must be {kind}")
    raw["settings"] = {
        f"{section}.{name}": value
        for section, values in sections.items()
        for name, value in values.items()
    }
    if is_untouched(text):
        raw["excused"] = frozenset(raw["settings"])
    return raw

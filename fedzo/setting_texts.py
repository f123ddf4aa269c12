"""Settings as people type them: key=value."""

import tomllib
from collections.abc import Iterable
from typing import Any

from fedzo.config import Scalar
from fedzo.errors import ConfigError


def parse_setting(text: str) -> tuple[str, Scalar]:
    """Split `key=value`; a value that is not a TOML scalar is a string.

    Raises ConfigError when there is no `=`.
    """
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not key=value; write for example client.mu=0.01")
    try:
        found = tomllib.loads(f"v = {raw}")
        value: Any = found["v"] if len(found) == 1 else raw
    except (ValueError, RecursionError):  # too many digits and brackets too
        value = raw
    return key.strip(), value if isinstance(value, bool | int | float | str) else raw


def parse_settings(texts: Iterable[str]) -> dict[str, Scalar]:
    """Return `key=value` texts by key; raises ConfigError for a key that is given two values."""
    parsed: dict[str, Scalar] = {}
    for text in texts:
        key, value = parse_setting(text)
        if key in parsed and parsed[key] != value:
            raise ConfigError(
                f"--set {key} is given both {parsed[key]!r} and {value!r}; name it once"
            )
        parsed[key] = value
    return parsed

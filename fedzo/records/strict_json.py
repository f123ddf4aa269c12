"""JSON that every reader takes: what is no finite number is null, or text that says it."""

import json
import math
from collections.abc import Mapping
from typing import Any


def strict_json(value: Any, *, indent: int | None = None) -> str:
    """Return valid JSON; NaN and infinities, which JSON does not have, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spelled(value: Any) -> Any:
    """Return a value with text in the place of infinities and NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def unspelled(value: Any) -> Any:
    """Return what `spelled` was given."""
    if isinstance(value, dict):
        return {key: unspelled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unspelled(item) for item in value]
    return float(value) if isinstance(value, str) and value in ("inf", "-inf", "nan") else value

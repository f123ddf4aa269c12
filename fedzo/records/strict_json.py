"""JSON that every reader takes: what is no finite number is null."""

import json
import math
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

"""Vocabulary and maths of fedzo; strategies and clients are thin on top of it."""

from importlib import import_module
from typing import Any

from fedzo.moved import lead_from_old_names

__version__ = "0.1.0"

lead_from_old_names()

_LATER = {"load_run": "scenarios.runs.stored", "load_runs": "scenarios.runs.stored"}
"""Where what `import fedzo` offers lies; it needs torch, and is imported when it is used."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)

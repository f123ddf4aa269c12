"""Vocabulary and maths of fedzo; strategies and clients are thin on top of it.

fedzo.strategies, fedzo.clients and fedzo.scenarios are the packages beside it (fedzo.packages).
"""

from importlib import import_module
from typing import Any

from fedzo.moved import lead_from_old_names
from fedzo.packages import PACKAGES, find_packages

__version__ = "0.1.0"

find_packages()
lead_from_old_names()


def __getattr__(name: str) -> Any:
    """Import a package beside fedzo when it is asked for: most of them need torch."""
    if name in PACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

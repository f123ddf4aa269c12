"""Vocabulary and maths of fedzo; strategies and clients are thin on top of it."""

import importlib
from typing import TYPE_CHECKING, Any

from fedzo.moved import lead_from_old_names

if TYPE_CHECKING:
    from fedzo.blackbox.minimize import minimize as minimize
    from fedzo.blackbox.optimizer import Optimizer as Optimizer
    from fedzo.blackbox.variables import Choice as Choice
    from fedzo.blackbox.variables import Float as Float
    from fedzo.blackbox.variables import Int as Int
    from fedzo.blackbox.variables import Log as Log

__version__ = "0.1.0"

FACE = {
    "minimize": "fedzo.blackbox.minimize",
    "Optimizer": "fedzo.blackbox.optimizer",
    "Float": "fedzo.blackbox.variables",
    "Log": "fedzo.blackbox.variables",
    "Int": "fedzo.blackbox.variables",
    "Choice": "fedzo.blackbox.variables",
}
"""What `import fedzo` offers, and the module of each, which is imported when it is used."""


def __getattr__(name: str) -> Any:
    if name not in FACE:
        raise AttributeError(f"module 'fedzo' has no attribute {name!r}")
    return getattr(importlib.import_module(FACE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *FACE])


lead_from_old_names()

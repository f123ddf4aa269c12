"""Shapes and types are checked in tests: the first calls of every function in a file of tests."""

import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from hypothesis import HealthCheck, settings

CHECKED_CALLS = 3
"""Of a function in a file. Later ones repeat them, and checking all took half of the time."""

checker = ModuleType("fedzo_test_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
sys.modules[checker.__name__] = checker

checked_calls: Counter[CodeType] = Counter()
check_all = jaxtyping.jaxtyped


@functools.wraps(check_all)
def check_first(*args: Any, **settings: Any) -> Callable[[Any], Any]:
    """Return a decorator as that of jaxtyping, which checks the first calls in every test."""
    decorate = check_all(*args, **settings)

    def decorator(function: Any) -> Any:
        if dataclasses.is_dataclass(function):
            if "__init__" in vars(function):
                function.__init__ = decorator(function.__init__)  # type: ignore[misc]
            return function
        if not isinstance(function, FunctionType):
            return decorate(function)
        checked: Callable[..., Any] | None = None

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal checked
            if checked_calls[function.__code__] >= CHECKED_CALLS:
                return function(*args, **kwargs)
            checked_calls[function.__code__] += 1
            checked = checked or decorate(function)
            return checked(*args, **kwargs)

        return call

    return decorator


jaxtyping.jaxtyped = check_first  # type: ignore[assignment]
jaxtyping.install_import_hook(
    ["fedzo", "strategies", "clients", "scenarios"], "fedzo_test_checker.check"
)


@pytest.fixture(autouse=True, scope="module")
def _count_calls_anew() -> None:
    checked_calls.clear()


# The same examples at every run, and no failure for a slow machine or a cold cache.
# More of them: pytest --hypothesis-profile thorough.
for profile, examples in (("fedzo", 20), ("thorough", 100)):
    settings.register_profile(
        profile,
        deadline=None,
        derandomize=True,
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("fedzo")

import torch  # noqa: E402

torch.set_num_threads(1)

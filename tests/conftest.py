"""Shapes and types are checked in tests: the first calls of every function in a file of tests."""

import dataclasses
import functools
import gc
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from hypothesis import HealthCheck, settings

CHECKED_CALLS = 2
"""Of a function in a file. Later ones repeat them, and checking all took half of the time."""

gc.disable()  # while hundreds of modules are imported, which all stay; see below
checker = ModuleType("fedzo_test_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
sys.modules[checker.__name__] = checker

most_calls = [CHECKED_CALLS]
"""How many are checked in the test that runs."""
checked_calls: dict[CodeType, list[int]] = {}
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
        done = checked_calls.setdefault(function.__code__, [0])
        if done[0] >= CHECKED_CALLS:  # one of many that a function makes
            return function
        checked: Callable[..., Any] | None = None

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal checked
            if done[0] >= most_calls[0]:
                return function(*args, **kwargs)
            done[0] += 1
            checked = checked or decorate(function)
            return checked(*args, **kwargs)

        return call

    return decorator


jaxtyping.jaxtyped = check_first  # type: ignore[assignment]
jaxtyping.install_import_hook(
    ["fedzo", "strategies", "clients", "scenarios"], "fedzo_test_checker.check"
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send the tests of a file to one worker: both would make its fixtures and check its types."""
    from xdist.scheduler import LoadGroupScheduling

    class ByGroupOrFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return super()._split_scope(nodeid).partition("::")[0]

    return ByGroupOrFile(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests of a group together: xdist 3.8 marks them where pytest 9.2 no longer looks.

    Without this every worker starts Ray, a browser and trains all victims.
    """
    for item in items:
        grouped = vars(item).get("_nodeid")
        if grouped:
            item._id = type(item._id).parse(grouped)  # type: ignore[attr-defined]


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def _count_calls_anew() -> None:
    for done in checked_calls.values():
        done[0] = 0


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Check no types: what a test gives is wrong, or it looks at `random`, which checks use."""
    most_calls[0] = 0
    yield
    most_calls[0] = CHECKED_CALLS


@pytest.fixture
def few_orders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let Renyi's accountant take few orders: of its 156 a calibration takes seconds."""
    from fedzo.privacy import accountant, composition

    monkeypatch.setattr(composition, "DEFAULT_RDP_ORDERS", [2, 3, 4, 6, 8, 12, 16, 24, 32])
    for cached in (accountant._epsilon, composition._renyi):
        cached.cache_clear()
    yield
    for cached in (accountant._epsilon, composition._renyi):
        cached.cache_clear()


# The same examples at every run, and no failure for a slow machine or a cold cache.
# More of them: pytest --hypothesis-profile thorough.
for profile, examples in (("fedzo", 10), ("thorough", 100)):
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

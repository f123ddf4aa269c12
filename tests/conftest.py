"""Shapes and types of every call are checked while tests run."""

import sys
from types import ModuleType

from beartype import BeartypeConf, beartype
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

checker = ModuleType("fedzo_test_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
sys.modules[checker.__name__] = checker
install_import_hook(["fedzo", "strategies", "clients", "scenarios"], "fedzo_test_checker.check")

# The same examples at every run, and no failure for a slow machine or a cold cache.
settings.register_profile(
    "fedzo", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fedzo")

import torch  # noqa: E402

torch.set_num_threads(1)

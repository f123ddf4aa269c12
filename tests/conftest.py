"""Shapes and types of every call are checked while tests run."""

import sys
from types import ModuleType

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checker = ModuleType("fedzo_test_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
sys.modules[checker.__name__] = checker
install_import_hook(["fedzo", "strategies", "clients", "scenarios"], "fedzo_test_checker.check")

import torch  # noqa: E402

torch.set_num_threads(1)

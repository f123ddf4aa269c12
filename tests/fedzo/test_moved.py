"""Old names of modules lead to the new ones, with a warning."""

import importlib
import subprocess
import sys

import pytest

from fedzo.moved import new_names


@pytest.mark.parametrize("old", sorted(new_names()))
def test_an_old_name_is_the_module_that_it_has_become(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=f"{old} is now {new_names()[old]}; the old name goes"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(new_names()[old])
    assert module.__spec__.name == new_names()[old]  # type: ignore[union-attr]


LINES = """
from scenarios.experiment import make_experiment
from strategies.fedavg import FedAvg
from clients.app import build_client_app
from fedzo.objective import CallableObjective
import fedzo.attacks.victim as old
from fedzo import transport; assert transport.Http
from fedzo.runtime.flower import FlowerEngine
"""
TRIED = f"""
import sys, warnings
warnings.simplefilter("ignore")
for line in {LINES.strip().splitlines()!r}:
    ours = ("fedzo", "strategies", "clients", "scenarios")
    for name in [name for name in sys.modules if name.split(".")[0] in ours]:
        del sys.modules[name]
    exec(line)
from fedzo.attacks.victims import victim
import fedzo.attacks.victim as old
assert old is victim
"""


@pytest.mark.more
def test_old_names_work_before_anything_else_of_ours_is_imported() -> None:
    subprocess.run([sys.executable, "-c", TRIED], check=True)

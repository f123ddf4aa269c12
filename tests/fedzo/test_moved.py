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


@pytest.mark.parametrize(
    "line",
    [
        "from scenarios.experiment import make_experiment",
        "from strategies.fedavg import FedAvg",
        "from clients.app import build_client_app",
    ],
)
def test_old_names_work_before_anything_else_is_imported(line: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", line], check=True)


def test_old_names_work_in_every_kind_of_import() -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from fedzo.objective import CallableObjective\n"
        "import fedzo.attacks.victim as old\n"
        "from fedzo import transport\n"
        "from fedzo.attacks.victims import victim\n"
        "assert old is victim and transport.Http\n"
        "from fedzo.runtime.flower import FlowerEngine\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

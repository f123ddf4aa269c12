"""The packages beside fedzo are found, by both names, whatever lies in the user's folder."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import fedzo


@pytest.mark.parametrize("name", ["strategies", "clients.rules", "scenarios.runs.names"])
def test_a_package_is_the_same_under_fedzo(name: str) -> None:
    module = importlib.import_module(name)
    assert importlib.import_module(f"fedzo.{name}") is module
    assert module.__spec__ is not None
    assert module.__spec__.name == name


def test_packages_are_attributes_and_nothing_else_is() -> None:
    from strategies import FedAvg

    assert fedzo.strategies.FedAvg is FedAvg
    assert fedzo.strategies.core.base.__name__ == "strategies.core.base"
    with pytest.raises(AttributeError, match="has no attribute 'kitchen'"):
        _ = fedzo.kitchen
    with pytest.raises(ModuleNotFoundError, match=r"strategies\.nothing"):
        importlib.import_module("fedzo.strategies.nothing")


def ran(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(code)
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_file_of_the_users_that_is_called_like_a_package_is_told(tmp_path: Path) -> None:
    (tmp_path / "strategies.py").write_text("mine = 1\n")
    for code in ("import fedzo.strategies", "import strategies, fedzo"):
        done = ran(tmp_path, code)
        assert done.returncode == 1
        told = f"{tmp_path}/strategies.py is called like fedzo's package strategies, which"
        assert told in done.stderr.splitlines()[-1]


@pytest.mark.more
def test_a_mere_folder_does_not_stand_in_for_a_package(tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    done = ran(tmp_path, "import fedzo\nfrom scenarios.runs.names import SCENARIOS\nimport clients")
    assert done.returncode == 0, done.stderr

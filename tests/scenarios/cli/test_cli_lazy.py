"""Help, version and lists do without torch, and say of each command what it says itself."""

import subprocess
import sys

import pytest

from scenarios.cli.lazy import COMMANDS, imported

HEAVY = ("torch", "flwr", "ray", "matplotlib", "scipy", "gpytorch", "dp_accounting")
ASKED = f"""
import sys
import fedzo
from scenarios.cli.app import app
from scenarios.runs.names import ENGINES, SCENARIOS, STRATEGIES
listed = [["list"], *(["list", name] for name in SCENARIOS)]
listed += [["list", "custom", "--strategy", name] for name in STRATEGIES]
listed += [["list", "custom", "--engine", name] for name in ENGINES]
for arguments in (["--help"], ["--version"], ["run", "--help"], *listed):
    try:
        app(arguments)
    except SystemExit as done:
        assert done.code == 0, done.code
print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


def test_help_version_and_lists_import_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == "\n"
    assert "--query-budget" in done.stdout
    assert "scenario.objective" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_a_command_is_that_of_its_docstring(name: str) -> None:
    said = imported(name).help
    assert said
    assert " ".join(said.split("\n\n")[0].split()) == COMMANDS[name]


def test_the_package_offers_functions_whose_modules_have_their_names() -> None:
    import scenarios
    from scenarios import Experiment, RunResult, federate, make_experiment, simulate

    module = sys.modules["scenarios.runs.simulate"]
    assert simulate is scenarios.simulate is module.simulate
    assert federate is module.federate
    assert RunResult is module.RunResult
    assert make_experiment.__module__ == Experiment.__module__ == "scenarios.runs.experiment"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = scenarios.nothing

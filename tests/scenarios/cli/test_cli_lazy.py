"""Help, version and lists do without torch, and say of each command what it says itself."""

import os
import subprocess
import sys

import pytest

from scenarios.cli.lazy import COMMANDS, imported

HEAVY = ("torch", "flwr", "ray", "matplotlib", "scipy", "gpytorch", "dp_accounting")
LIGHT = (
    "list", "run", "compare", "sweep", "deploy", "audit", "check", "new", "init", "plot", "table",
    "report", "runs", "watch", "attack", "defend", "finetune", "replay",
)  # fmt: skip
ASKED = f"""
import sys
import fedzo
from scenarios.cli.app import app
from scenarios.runs.names import ENGINES, SCENARIOS, STRATEGIES
listed = [["list"], *(["list", name] for name in SCENARIOS)]
listed += [["list", "custom", "--strategy", name] for name in STRATEGIES]
listed += [["list", "custom", "--engine", name] for name in ENGINES]
helped = [[name, "--help"] for name in {LIGHT!r}]
for arguments in (["--help"], ["--version"], *helped, *listed):
    try:
        app(arguments)
    except SystemExit as done:
        assert done.code == 0, done.code
print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.more
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


@pytest.mark.more
def test_a_run_that_draws_nothing_imports_nothing_to_draw_with() -> None:
    code = (
        "import sys; from scenarios.cli.app import app\n"
        "try: app(['run', 'quadratic', '--rounds', '1', '--set', 'scenario.dim=2', '--json'])\n"
        "finally: print([n for n in ('matplotlib', 'scipy', 'gpytorch', 'ray', 'dp_accounting')"
        " if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_the_shell_completes_after_an_option_of_paths() -> None:
    words = {
        "_FEDZO_COMPLETE": "complete_bash",
        "COMP_WORDS": "fedzo run bowl --out ",
        "COMP_CWORD": "4",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from scenarios.cli import main; main()"],
        env={**os.environ, **words, "_FEDZO_COMPLETE": "complete_bash"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr

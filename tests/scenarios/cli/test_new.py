"""What `fedzo new` writes runs at once, by the command that it prints."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scenarios.cli.app import app
from scenarios.cli.new import _STARTERS as STARTERS
from scenarios.cli.new import KINDS, _names_in

FEWER = {
    "strategy": "--rounds 2 --clients 2",
    "objective": "--rounds 2 --clients 2",
    "attacker": "--images 1 --query-budget 40",
    "aggregator": "--rounds 2 --set scenario.dim=6",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_writes_runs_by_the_command_it_prints(kind: str, here: Path) -> None:
    code, told = said("new", kind, "MyIdea")
    assert code == 0
    text = (here / "my_idea.py").read_text()
    assert "starter" not in text.lower()
    assert len(text.splitlines()) <= 60
    command = next(line for line in told.splitlines() if line.startswith("  fedzo "))
    code, told = said(*shlex.split(f"{command} {FEWER[kind]}")[1:])
    assert code == 0, told
    assert "MyIdea" in told or kind != "strategy"
    shown = "my_idea.py:" + ("MyIdea" if KINDS[kind].is_class else "my_idea")
    assert said("list", shown)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("strateg", "A"), "unknown kind strateg; did you mean strategy?"),
        (("strategy", "a b"), "name 'a b' must be letters, digits and _"),
        (("strategy", "Torch"), "a module torch is installed, which torch.py would hide"),
        (("strategy", "Strategies"), "strategies is a package of fedzo, which strategies.py"),
        (("strategy", "fedzo"), "fedzo is a package of fedzo"),
        (("strategy", "Taken"), "taken.py exists already; give another name"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    arguments: tuple[str, ...], told: str, here: Path
) -> None:
    (here / "taken.py").write_text("# mine\n")
    code, answer = said("new", *arguments)
    assert code == 2
    assert told in answer.replace("\n", " ")
    assert [(file.name, file.read_text()) for file in here.iterdir()] == [("taken.py", "# mine\n")]


@pytest.mark.parametrize(
    ("kind", "name"), [("objective", "simulated"), ("strategy", "State"), ("attacker", "generator")]
)
def test_a_name_that_the_file_gives_something_else_is_refused(
    kind: str, name: str, tmp_path: Path
) -> None:
    text = (STARTERS / f"{kind}.py").read_text()
    done = CliRunner().invoke(app, ["new", kind, name])
    taken = {name, name.lower()} & _names_in(text)
    assert (done.exit_code == 2) == bool(taken)
    assert bool(list(tmp_path.iterdir())) == (not taken)


def test_the_objectives_own_helper_is_such_a_name() -> None:
    assert "simulated" in _names_in((STARTERS / "objective.py").read_text())

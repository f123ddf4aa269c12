"""What `fedzo init` writes is an experiment: as it is, and with every line of it in force."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scenarios.cli.app import app
from scenarios.cli.init import commented
from scenarios.runs.config_file import read_experiment
from scenarios.runs.experiment import make_experiment


def said(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("scenario", "strategy"),
    [("quadratic", "fedzo"), ("attack", "fzoos"), ("regression", "dp_zo"), ("custom", "mezo")],
)
def test_it_says_what_holds_anyway(scenario: str, strategy: str, tmp_path: Path) -> None:
    text, file = commented(scenario, strategy, "inprocess"), tmp_path / "it.toml"
    wanted = make_experiment(scenario, strategy)
    file.write_text(text)
    assert make_experiment(**read_experiment(file)) == wanted
    setting = re.compile(r"^# (\w+ = .*)$", re.MULTILINE)
    file.write_text(setting.sub(r"\1", text.replace("# query_budget", "# query budget")))
    given = read_experiment(file)
    assert given["settings"] == dict(wanted.settings)
    assert make_experiment(**given) == wanted


def test_the_command_writes_once_and_its_file_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = said("init", "quadratic", "--strategy", "seedzo")
    assert (code, "fedzo run --config quadratic.toml" in told) == (0, True)
    code, told = said("run", "--config", "quadratic.toml", "--rounds", "1", "--clients", "2")
    assert (code, "quadratic / seedzo" in told) == (0, True)
    code, told = said("init", "quadratic")
    assert (code, "quadratic.toml exists already" in told) == (2, True)
    code, told = said("init", "quadratik", "--out", "other.toml")
    assert (code, "did you mean quadratic?" in told) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["quadratic.toml"]


def test_an_objective_of_the_users_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said("new", "objective", "a_box")[0] == 0
    assert said("init", "a_box.py:a_box", "--strategy", "fzoos")[0] == 0
    written = tomllib.loads(Path("a_box.toml").read_text())
    assert written["set"]["scenario"] == {"objective": "a_box.py:a_box"}
    assert said("run", "--config", "a_box.toml", "--rounds", "1", "--clients", "2")[0] == 0


def test_without_a_command_there_is_a_page_that_teaches() -> None:
    code, told = said()
    assert code == 0
    commands = [line.strip() for line in told.splitlines() if line.startswith("  fedzo ")]
    assert len(commands) == 9
    assert len(told.splitlines()) < 30
    assert said("--version")[1].startswith("fedzo 0")

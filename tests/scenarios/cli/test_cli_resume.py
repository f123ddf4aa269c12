"""A run that is named by nothing but its directory goes on; a run without a strategy has one."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from scenarios.cli.app import app
from scenarios.runs.stored import load_run

RUN = ("run", "quadratic", "--strategy", "scaffold1", "--set", "scenario.dim=4")


def fedzo(*arguments: str) -> tuple[int, str]:
    """Return the status and what is said of it."""
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stderr


def test_a_directory_alone_extends_its_run_to_the_same_bits(tmp_path: Path) -> None:
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    assert fedzo(*RUN, "--rounds", "2", "--out", str(cut))[0] == 0
    assert fedzo("run", "--resume", str(cut), "--rounds", "3")[0] == 0
    assert fedzo("run", "--out", str(cut), "--resume", "--rounds", "4")[0] == 0
    assert fedzo(*RUN, "--rounds", "4", "--out", str(whole))[0] == 0
    assert (cut / "x.npy").read_bytes() == (whole / "x.npy").read_bytes()
    assert (cut / "experiment.toml").read_text() == (whole / "experiment.toml").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--strategy", "fedzo"), "is one of scaffold1; leave --strategy out"),
        (("--set", "scenario.dim=5", "--rounds", "9"), "there dim = 4, now dim = 5"),
        (("--rounds", "1"), "can be extended but not shortened"),
        (("--engine", "ray", "--rounds", "9"), "is one on inprocess; leave --engine out"),
        (("--query-budget", "9000"), "there nothing, now query_budget = 9000"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(
    more: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert fedzo(*RUN, "--rounds", "2", "--out", str(out))[0] == 0
    before = (out / "history.jsonl").read_bytes()
    status, told = fedzo("run", "--resume", str(out), *more)
    assert (status, said in told) == (2, True), told
    assert (out / "history.jsonl").read_bytes() == before


@pytest.mark.parametrize("scenario", [[], ["quadratic"]])
def test_a_resume_of_nothing_is_a_sentence(scenario: list[str], tmp_path: Path) -> None:
    assert fedzo("run", *scenario, "--resume") == (
        2,
        "error: resume needs the directory of the run: --resume DIR, or --out DIR --resume\n",
    )
    status, told = fedzo("run", "--resume", str(tmp_path))
    assert (status, "holds no run" in told) == (2, True)


def test_a_strategy_that_nobody_names_is_fedzo(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert fedzo("run", "quadratic", "--rounds", "1", "--out", str(out))[0] == 0
    assert load_run(out).experiment.strategy == "fedzo"


@pytest.mark.parametrize("command", [[], ["run"], ["plot"], ["attack"]])
def test_a_short_option_asks_for_help(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "-h"])
    assert done.exit_code == 0
    assert "Usage: fedzo" in done.stdout

"""What a run tells Python's logging, and a log file."""

import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedzo.errors import ConfigError
from fedzo.records.history import RoundRecord
from fedzo.records.run_log import LOGGER, RunLog, logged_to
from fedzo.records.status import Limits
from scenarios.cli.app import app

RUN = ("run", "quadratic", "--rounds", "3", "--set", "scenario.dim=4")
FAILING = ("--set", "faults.crash=0.3", "--set", "strategy.max_failed_rounds=9")


def fedzo(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stderr


def levels(file: Path) -> list[str]:
    return [line.split()[1] for line in file.read_text().splitlines()]


def test_a_log_file_gets_rounds_and_failures_at_its_end(tmp_path: Path) -> None:
    file = tmp_path / "fedzo.log"
    file.write_text("of before\n")
    assert fedzo(*RUN, *FAILING, "--log-file", str(file))[0] == 0
    lines = file.read_text().splitlines()
    assert lines[0] == "of before"
    assert lines[1].endswith(
        "INFO    quadratic / fedzo / seed 0: begins on inprocess with 5 clients"
    )
    assert [f"round {k}/3" in line for line in lines for k in range(4)].count(True) == 4
    failed = [line for line in lines if " WARNING " in line]
    assert failed
    assert all(line.endswith("crashed (injected)") for line in failed)
    assert lines[-1].endswith("ended by rounds")


def test_a_level_leaves_out_what_is_below(tmp_path: Path) -> None:
    file = tmp_path / "fedzo.log"
    assert fedzo(*RUN, *FAILING, "--log-file", str(file), "--log-level", "warning")[0] == 0
    assert set(levels(file)) == {"WARNING"}
    out = ("--out", str(tmp_path / "run"), "--log-file", str(tmp_path / "all"))
    assert fedzo(*RUN, *out, "--log-level", "debug")[0] == 0
    assert "DEBUG" in levels(tmp_path / "all")
    assert fedzo(*RUN, "--log-level", "info")[1].count("INFO") == 6


def test_what_ends_a_run_is_its_last_line(tmp_path: Path) -> None:
    file = tmp_path / "fedzo.log"
    always = ("--set", "faults.crash=1.0", "--set", "strategy.max_failed_rounds=0")
    assert fedzo(*RUN, *always, "--log-file", str(file))[0] == 1
    assert "ERROR   TooFewAnswers: round 1: " in file.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--log-file", "{}/nowhere/x"), "cannot be written: No such file or directory"),
        (("--log-file", "{}"), "cannot be written: Is a directory"),
        (("--log-level", "loud"), "must be one of debug, info, warning, error"),
    ],
)
def test_bad_input_is_one_sentence(options: tuple[str, str], said: str, tmp_path: Path) -> None:
    place = tmp_path / "run"
    typed = [text.format(tmp_path) for text in options]
    status, told = fedzo(*RUN, *typed, "--out", str(place))
    assert (status, said in told, len(told.splitlines())) == (2, True, 1), told
    assert not place.exists()


def test_what_a_client_says_is_one_line_that_does_nothing(tmp_path: Path) -> None:
    file, log = tmp_path / "log", RunLog("run", Limits(9))
    with logged_to(file, "info"):
        log.tell(RoundRecord(round_index=1, failures={3: "gone\n2026 INFO all well \x1b[2J"}))
    assert len(file.read_text().splitlines()) == 2
    assert "\x1b" not in file.read_text()


def test_nothing_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = (list(LOGGER.handlers), LOGGER.level)
    with logged_to(tmp_path / "log", "debug"):
        LOGGER.debug("inside")
    assert (list(LOGGER.handlers), LOGGER.level) == before
    with pytest.raises(ConfigError), logged_to(None, "loud"):
        pass
    with caplog.at_level(logging.INFO, logger="fedzo"):
        RunLog("run", Limits(9)).tell(RoundRecord(round_index=1, value=2.0))
    assert "round 1/9  F 2" in caplog.text, "users of Python hear it without a file"


def test_a_full_disk_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with logged_to(Path("/dev/full"), "info"):
        LOGGER.info("one")
        LOGGER.info("two")
    assert capsys.readouterr().err == (
        "warning: /dev/full misses lines: [Errno 28] No space left on device\n"
    )

"""Where a level was reached for good, and what it had cost."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedzo.errors import ConfigError
from fedzo.records.history import RoundRecord
from scenarios.cli.app import app
from scenarios.runs.compare import compare
from scenarios.runs.milestones import Target, reached
from scenarios.runs.simulate import simulate


def records(values: list[float | None], metric: str = "score") -> list[RoundRecord]:
    return [
        RoundRecord(round_index=i, metrics={} if v is None else {metric: v}, examples=10 * i)
        for i, v in enumerate(values)
    ]


def test_one_lucky_evaluation_does_not_count() -> None:
    assert reached(records([0, 0, 9, 0, 0, 0, 0]), "score", 2.0) is None
    found = reached(records([0, 0, 9, 0, 0, 0, 0]), "score", 1.8)
    assert found is not None
    assert found.round_index == 4
    assert reached(records([9, 9, 9, 9]), "score", 1.0) is None, "five are needed"


def test_rounds_without_an_evaluation_are_skipped() -> None:
    found = reached(records([1, None, 1, None, 1, None, 1, None, 1]), "score", 1.0)
    assert found is not None
    assert (found.round_index, found.examples) == (8, 80)


def test_losses_are_reached_from_above() -> None:
    found = reached(records([9, 5, 4, 3, 2, 1, 1], "gap"), "gap", 3.0)
    assert found is not None
    assert found.round_index == 5


def test_a_median_needs_half_of_the_runs() -> None:
    cost = {"rounds": 4.0, "examples": 40.0, "queries": 0.0, "floats": 8.0}
    dear = {name: 2 * value for name, value in cost.items()}
    target = Target("score", 1.0, {"a": [cost, None, dear], "b": [None, None, cost]})
    assert target.median("a") == dear
    assert target.median("b") is None


def test_compare_says_what_it_took() -> None:
    base = {"scenario": "quadratic", "num_rounds": 20, "settings": {"scenario.dim": 10}}
    result = compare(base, ["fedavg", "fedzo"], [0], reach={"gap": [3.0], "value": [-5.0]})
    gap, value = result.to_json()["targets"]
    assert gap["median"]["fedavg"]["rounds"] >= 4
    assert gap["median"]["fedzo"]["queries"] > 0
    assert value["median"] == {"fedavg": None, "fedzo": None}
    json.dumps(result.to_json(), allow_nan=False)


def test_an_unknown_metric_names_those_that_there_are() -> None:
    base = {"scenario": "quadratic", "num_rounds": 2, "settings": {"scenario.dim": 5}}
    with pytest.raises(ConfigError, match=r"--reach score is not recorded; allowed: value, gap"):
        compare(base, ["fedavg"], [0], reach={"score": [1.0]})


def test_the_command_prints_a_table_for_each_level(tmp_path: Path) -> None:
    command = ["compare", "quadratic", "--strategies", "fedavg", "--seeds", "0", "--rounds", "12"]
    command += ["--set", "scenario.dim=5", "--reach", "gap=9,1e-99"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    assert "gap 9: spent until there" in shown.output
    assert "never" in shown.output
    wrong = CliRunner().invoke(app, ["compare", "quadratic", "--reach", "gap"])
    assert wrong.exit_code == 2


def test_a_misspelled_metric_ends_after_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    def counting(*args: Any, **more: Any) -> Any:
        runs.append(args)
        return simulate(*args, **more)

    monkeypatch.setattr("scenarios.runs.compare.simulate", counting)
    base = {"scenario": "quadratic", "num_rounds": 2, "settings": {"scenario.dim": 5}}
    with pytest.raises(ConfigError, match="--reach gab is not recorded"):
        compare(base, ["fedavg", "fedzo"], [0, 1], reach={"gab": [1.0]})
    assert len(runs) == 1

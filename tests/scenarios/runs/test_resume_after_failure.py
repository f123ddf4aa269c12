"""A run that fails leaves what it has had, and goes on from there."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import fedzo
from fedzo.errors import ConfigError, FedzoWarning, RunError
from scenarios.problems.custom import CustomScenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate
from scenarios.runs.stored import load_run
from strategies.core.driver import Snapshot


def failing(after: int) -> Callable[[int], fedzo.CallableObjective]:
    """Return what makes clients that all fail after so many calls."""

    def make(client: int) -> fedzo.CallableObjective:
        calls = [0]

        def f(x: np.ndarray) -> float:
            calls[0] += 1
            if calls[0] > after:
                raise RuntimeError("sensor lost")
            return float((x**2).sum())

        return fedzo.CallableObjective(function=f, dim=3)

    return make


def test_failed_rounds_are_in_the_history(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="sensor lost") as caught:
        fedzo.federate(failing(5), num_clients=2, num_rounds=9, out=tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert [record.round_index for record in run.records] == [0, 1, 2, 3]
    assert all("sensor lost" in record.failures[0] for record in run.records[1:])
    assert run.records[-1].queries == caught.value.result.records[-1].queries > 2


@pytest.mark.filterwarnings("error::fedzo.FedzoWarning")
def test_x_that_nobody_has_answered_for_is_not_told_to_stand_still() -> None:
    with pytest.raises(RunError, match="sensor lost"):
        fedzo.federate(failing(1), num_clients=2, num_rounds=9)


def test_why_a_run_has_ended_is_known_when_it_is_begun_again(tmp_path: Path) -> None:
    made = make_experiment("quadratic", "seedzo", num_rounds=3)
    first = simulate(made, out=tmp_path / "run")
    again = simulate(made, out=tmp_path / "run", resume=True)
    assert list(first.stops) == list(again.stops) == ["rounds"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stops"] == ["rounds"]
    longer = make_experiment("quadratic", "seedzo", num_rounds=5)
    assert list(simulate(longer, out=tmp_path / "run", resume=True).stops) == ["rounds"]


def test_a_run_that_failed_goes_on_from_before_the_failed_rounds(tmp_path: Path) -> None:
    made = make_experiment("custom", "fedzo", num_rounds=6, num_clients=2)
    config = made.config("scenario")

    def go(after: int, out: Path, resume: bool = False) -> RunResult:
        scenario = CustomScenario(config, num_clients=2, seed=0, make_objective=failing(after))
        return simulate(made, scenario=scenario, out=out, resume=resume)

    whole = go(10**9, tmp_path / "whole")
    with pytest.raises(RunError, match="sensor lost"):
        go(400, tmp_path / "cut")
    again = go(10**9, tmp_path / "cut", resume=True)
    assert torch.equal(whole.x, again.x)
    assert [r.queries for r in whole.records] == [r.queries for r in again.records]


def test_one_client_that_fails_does_not_hide_that_x_stands_still() -> None:
    def make(client: int) -> fedzo.CallableObjective:
        def f(x: np.ndarray) -> float:
            if client == 0:
                raise RuntimeError("gone")
            return 1.0

        return fedzo.CallableObjective(function=f, dim=2)

    with pytest.warns(FedzoWarning, match="x has not moved"):
        fedzo.federate(make, num_clients=3, num_rounds=4)


def test_black_boxes_are_refused_to_first_order_methods_in_the_first_round(tmp_path: Path) -> None:
    asked = []

    def make(client: int) -> fedzo.CallableObjective:
        return fedzo.CallableObjective(function=lambda x: asked.append(1) or 1.0, dim=3)

    with pytest.raises(ConfigError, match="use a zeroth-order"):
        fedzo.federate(make, strategy="fedavg", num_clients=2, num_rounds=9, out=tmp_path)
    assert len(asked) <= 4
    assert not [*tmp_path.rglob("*")]
    (tmp_path / "error.txt").write_text("what another process says")
    fedzo.federate(make, strategy="fedzo", num_clients=2, num_rounds=1, out=tmp_path)


def test_a_run_that_is_refused_later_or_beside_other_files_keeps_what_it_has(
    tmp_path: Path,
) -> None:
    def make(client: int) -> fedzo.CallableObjective:
        return fedzo.CallableObjective(function=lambda x: float((x**2).sum()), dim=3)

    def end(rounds: int, note: Path | None = None) -> Callable[[Snapshot], None]:
        def callback(snapshot: Snapshot) -> None:
            if snapshot.record.round_index == rounds:
                if note:
                    note.write_text("mine")
                raise ConfigError("enough")

        return callback

    for name, rounds, note in (("late", 3, ""), ("beside", 0, "notes.txt")):
        out = tmp_path / name
        callback = end(rounds, out / note if note else None)
        with pytest.raises(ConfigError, match="enough"):
            fedzo.federate(make, num_clients=2, num_rounds=9, out=out, callbacks=[callback])
        assert (out / "experiment.toml").exists()
        assert not note or (out / note).read_text() == "mine"


def test_a_reference_names_the_objectives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bowl.py").write_text(
        "import fedzo\n\n\ndef bowl(client):\n"
        "    return fedzo.CallableObjective(function=lambda x: float((x**2).sum()), dim=2)\n"
    )
    monkeypatch.chdir(tmp_path)
    start = torch.ones(2, dtype=torch.float64)
    result = fedzo.federate("bowl.py:bowl", num_clients=2, num_rounds=2, initial_x=start)
    assert result.initial_value == 2.0
    with pytest.raises(ConfigError, match="has no 'cup'; it has bowl"):
        fedzo.federate("bowl.py:cup", num_clients=2, num_rounds=2)


def test_warnings_are_still_given_where_x_stands_still() -> None:
    flat = fedzo.CallableObjective(function=lambda x: 1.0, dim=2)
    with pytest.warns(FedzoWarning, match="x has not moved"):
        fedzo.federate(lambda _: flat, num_clients=2, num_rounds=4)

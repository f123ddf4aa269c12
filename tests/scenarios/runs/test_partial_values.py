"""An F of too few clients is another function's: it wins no sweep, and tables say so."""

import math
from pathlib import Path
from typing import Any

import pytest

import fedzo
from fedzo.errors import FedzoWarning
from scenarios.runs.compare import compare
from scenarios.runs.proposals import proposed
from scenarios.runs.report import write_report
from scenarios.runs.spaces import Choices, Range
from scenarios.runs.sweep import tune
from scenarios.runs.sweep_plan import SweepPlan
from scenarios.runs.trials import Job, Trial, run_trial

FAILS = """
from fedzo import CallableObjective

def fails(client):
    left = [60]
    def ask(x):
        left[0] -= client == 1
        if left[0] < 0:
            raise RuntimeError("gone")
        return float(((x - client) ** 2).sum())
    return CallableObjective(function=ask, dim=3)
"""

pytestmark = pytest.mark.filterwarnings("ignore::fedzo.errors.FedzoWarning")


def base(folder: Path, directions: int = 1) -> dict[str, Any]:
    path = folder / "fails.py"
    path.write_text(FAILS)
    settings = {
        "scenario.objective": f"{path}:fails",
        "strategy.local_steps": 2,
        "client.num_directions": directions,
    }
    return {"scenario": "custom", "num_rounds": 6, "num_clients": 2, "settings": settings}


def plan(folder: Path, *values: int) -> SweepPlan:
    made = {**base(folder), "strategy": "fedzo"}
    made["settings"].pop("client.num_directions")
    spaces = {"client.num_directions": Choices(values)}
    return SweepPlan(base=made, spaces=spaces, trials=len(values), search="grid")


def test_settings_that_make_a_client_fail_win_no_sweep(tmp_path: Path) -> None:
    tuned = tune(plan(tmp_path, 1, 8))
    whole, lost = tuned.trials
    assert (whole.partial, lost.partial) == (False, True)
    assert lost.score < whole.score  # of the client that is left, which is at its own optimum
    assert tuned.best is whole
    assert "1,partial," in tuned.table()


def test_trials_that_have_no_end_come_last_and_partial_ones_lead_nobody() -> None:
    def trial(index: int, score: float, partial: bool) -> Trial:
        return Trial(
            index=index, settings={"a": index}, status="done", values=[score], queries=0,
            curves={}, score=score, partial=partial,
        )  # fmt: skip

    trials = [trial(0, math.inf, False), trial(1, 0.1, True), trial(2, 5.0, False)]
    assert [each.index for each in sorted(trials, key=lambda t: t.rank)] == [2, 1, 0]
    spaces = {"a": Range("lin", 0.0, 9.0)}
    last = [trial(1, 5.0, False), trial(2, 4.0, False)]
    led = [proposed("tpe", spaces, [*last, trial(0, s, True)], 1, 0) for s in (-9.0, 5.0)]
    assert led[0] == led[1]


def test_a_curve_of_too_few_clients_stops_nobody(tmp_path: Path) -> None:
    job = Job(
        index=0, base={**base(tmp_path, 8), "strategy": "fedzo"}, settings={}, seeds=[0],
        measure="final_value", limits={},
    )  # fmt: skip
    trial = run_trial(job)
    assert trial.partial
    assert min(trial.curves["0"].values()) > 0.5  # of both clients, which differ by 1


def test_where_all_are_partial_it_is_said(tmp_path: Path) -> None:
    with pytest.warns(FedzoWarning, match=r"in every trial final_value is of too few clients"):
        tune(plan(tmp_path, 6, 8))


def test_tables_say_whose_f_is_partial(tmp_path: Path) -> None:
    settings = base(tmp_path)
    settings["settings"]["many:client.num_directions"] = 8
    found = compare(settings, ["fedzo", "many=fedzo"], [0], out=tmp_path / "out")
    said = "F of many at the end with seed 0 is of too few clients (partial)"
    assert [remark.startswith(said) for remark in found.remarks] == [True]
    assert [run["partial"] for run in found.runs] == [False, True]
    assert said in str(fedzo.table(tmp_path / "out"))
    write_report([tmp_path / "out"], tmp_path / "report.html")
    assert said in (tmp_path / "report.html").read_text()

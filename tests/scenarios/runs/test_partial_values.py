"""An F of too few clients is another function's: it wins no sweep, and tables say so."""

from pathlib import Path
from typing import Any

import pytest

import fedzo
from fedzo.errors import FedzoWarning
from scenarios.runs.compare import compare
from scenarios.runs.report import write_report
from scenarios.runs.spaces import Choices
from scenarios.runs.sweep import tune
from scenarios.runs.sweep_plan import SweepPlan

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

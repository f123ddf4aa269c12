"""Rules against attacks."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedzo.errors import ConfigError
from scenarios.cli.app import app
from scenarios.runs.experiment import make_experiment
from scenarios.runs.grid import (
    Grid,
    GridShape,
    parse_aggregators,
    parse_lies,
    parse_variation,
    run_grid,
    with_aggregators,
)
from scenarios.runs.simulate import simulate

BASE: dict[str, Any] = {
    "scenario": "quadratic",
    "num_rounds": 5,
    "num_clients": 7,
    "settings": {
        "scenario.dim": 9,
        "byzantine.num_clients": 2,
        "strategy.num_byzantine": 2,
    },
}


OPTIONS = (
    "compare quadratic --strategies seedzo --clients 7 --rounds 2 --seeds 0"
    " --set scenario.dim=9 --set byzantine.num_clients=2 --set strategy.num_byzantine=2"
    " --attacks none,alie --vary scenario.heterogeneity=5"
)

NAN_OPTIONS = (
    "compare classification --rounds 3 --set scenario.dataset=digits --clients 8"
    " --strategies dshb --aggregators mean,median --seeds 0 --attacks none,inner_product"
    " --set byzantine.scale=1e20 --set byzantine.num_clients=2 --set strategy.num_byzantine=2"
)


def grid(**shape: Any) -> Grid:
    base, labels = with_aggregators(BASE, ["seedzo"], ["mean", "nnm | trimmed_mean"])
    return run_grid(base, labels, [0, 1], GridShape(**shape))


def test_a_cell_is_the_mean_of_the_runs() -> None:
    found = grid(lies=["none", "sign_flip"])
    settings = {
        **BASE["settings"],
        "strategy.aggregator": "nnm | trimmed_mean",
        "byzantine.attack": "sign_flip",
    }
    values = [
        simulate(
            make_experiment(**{**BASE, "strategy": "seedzo", "seed": s, "settings": settings})
        ).final_value
        for s in (0, 1)
    ]
    mean, error = found.cells[""]["seedzo.nnm-trimmed_mean"]["sign_flip"]
    assert mean == pytest.approx(sum(values) / 2)  # type: ignore[arg-type]
    assert error == pytest.approx(abs(values[0] - values[1]) / 2)  # type: ignore[operator]
    row = found.cells[""]["seedzo.mean"]
    assert found.worst("", "seedzo.mean") == max(mean for mean, _ in row.values())


def test_panels_are_the_values_of_a_setting() -> None:
    found = grid(lies=["alie"], vary=("scenario.heterogeneity", [0.5, 5.0]), measure="gap")
    assert list(found.cells) == ["heterogeneity=0.5", "heterogeneity=5.0"]
    assert found.measure == "gap"
    assert not found.higher_is_better


def test_a_run_that_breaks_is_worse_than_anything(tmp_path: Path) -> None:
    settings = {**BASE["settings"], "strategy.non_finite": "pass"}
    base, labels = with_aggregators({**BASE, "settings": settings}, ["seedzo"], ["mean", "median"])
    shape = GridShape(lies=["infinity", "none"])
    found = run_grid(base, labels, [0], shape, out=tmp_path)
    assert found.measure == "final_value"
    assert found.cells[""]["seedzo.mean"]["infinity"][0] != found.worst("", "seedzo.median")
    printed = found.to_json()["panels"][""]
    assert printed["seedzo.mean"]["worst"] is None
    assert printed["seedzo.median"]["worst"] < 3
    assert (tmp_path / "grid.png").exists()


@pytest.mark.more
def test_values_that_are_nan_are_drawn_as_far_as_they_go(tmp_path: Path) -> None:
    options = NAN_OPTIONS.split()
    done = CliRunner().invoke(app, [*options, "--out", str(tmp_path / "grid"), "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["panels"][""]
    assert rows["dshb.mean"]["worst"] is None or rows["dshb.mean"]["worst"] < 0.5
    assert rows["dshb.median"]["worst"] is not None


def test_worst_depends_on_what_is_better() -> None:
    cells = {"": {"a": {"none": (0.9, 0.0), "alie": (0.4, 0.0)}}}
    assert Grid("", "test_accuracy", cells, None).worst("", "a") == 0.4
    assert Grid("", "final_value", cells, None).worst("", "a") == 0.9
    cells[""]["a"]["foe"] = (float("nan"), 0.0)
    assert Grid("", "final_value", cells, None).worst("", "a") != 0.9


def test_nothing_runs_where_one_cell_cannot(tmp_path: Path) -> None:
    base, labels = with_aggregators(BASE, ["seedzo"], ["krum"])
    shape = GridShape(lies=["none", "alie"], vary=("strategy.num_byzantine", [1, 4]))
    with pytest.raises(ConfigError, match="num_byzantine=4 needs more than 8 clients, got 7"):
        run_grid(base, labels, [0], shape, out=tmp_path / "grid")
    assert not (tmp_path / "grid").exists()


def test_texts() -> None:
    assert parse_aggregators("mean, clip(radius=1.0, num=2) | median,caf") == [
        "mean",
        "clip(radius=1.0, num=2) | median",
        "caf",
    ]
    assert parse_variation("scenario.alpha=1,0.5") == ("scenario.alpha", [1, 0.5])
    assert parse_lies("", {"settings": {"byzantine.attack": "foe"}}) == ["foe"]
    assert "label_flip" in parse_lies("all", {"scenario": "classification"})
    assert "label_flip" not in parse_lies("all", {"scenario": "quadratic"})
    with pytest.raises(ConfigError, match="unknown attack ally; did you mean alie"):
        parse_lies("ally", {})
    with pytest.raises(ConfigError, match="is not KEY=V,V"):
        parse_variation("scenario.alpha")


def test_labels_keep_their_own_settings() -> None:
    base = {"settings": {"fast:strategy.server_lr": 0.3, "scenario.dim": 4}}
    changed, labels = with_aggregators(base, ["fast=seedzo"], ["median"])
    assert labels == ["fast.median=seedzo"]
    assert changed["settings"] == {
        "scenario.dim": 4,
        "fast.median:strategy.server_lr": 0.3,
        "fast.median:strategy.aggregator": "median",
    }


def test_the_command_line(tmp_path: Path) -> None:
    options = OPTIONS.split()
    rules = ["--aggregators", "mean,nnm | trimmed_mean"]
    place = ["--out", str(tmp_path / "grid")]
    done = CliRunner().invoke(app, [*options, *rules, *place, "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["measure"] == "final_value"
    cells = printed["panels"]["heterogeneity=5"]["seedzo.mean"]
    assert cells["worst"] == max(cell["mean"] for cell in cells["attacks"].values())
    assert (tmp_path / "grid" / "grid.png").stat().st_size > 5000
    assert json.loads((tmp_path / "grid" / "grid.json").read_text()) == printed
    shown = CliRunner().invoke(app, [*options, *rules, *place, "--resume"])
    assert shown.exit_code == 0, shown.output
    assert "worst" in shown.stdout
    assert "seedzo.nnm-trimmed_mean" in shown.stdout


def test_names_are_listed() -> None:
    shown = CliRunner().invoke(app, ["list"]).stdout
    for name in ("alie_searched", "mimic_learned", "trimmed_mean", "bucketing", "monna"):
        assert name in shown

"""A finished run on another fleet is what a run with that fleet would have been."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import fedzo
from fedzo.errors import ConfigError
from scenarios.cli.app import app
from scenarios.runs.experiment import make_experiment
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate

TINY = {"scenario.dim": 12}
MOBILE = {"fleet.preset": "mobile", "fleet.query_s": 0.05}


def run(scenario: str, strategy: str, settings: dict[str, Any], **more: Any) -> RunResult:
    limits = {"num_rounds": 4, "num_clients": 5, **more}
    out = limits.pop("out", None)
    return simulate(make_experiment(scenario, strategy, settings=settings, **limits), out=out)


@pytest.mark.more
@pytest.mark.parametrize(
    ("scenario", "strategy", "settings", "more"),
    [
        ("quadratic", "fedzo", TINY, {}),
        ("quadratic", "fzoos", TINY, {}),
        ("quadratic", "fedamd", TINY, {}),
        ("quadratic", "monna", TINY, {}),
        ("quadratic", "fedzo", {**TINY, "strategy.participation": 0.5}, {"num_clients": 9}),
        ("quadratic", "fedzo", TINY, {"query_budget": 1200, "num_rounds": 30}),
        ("regression", "scaffold_exact", {}, {}),
        ("attack", "fedzo", {"scenario.num_images": 2}, {"num_rounds": 2}),
    ],
)
def test_a_retimed_run_is_the_clocked_one(
    scenario: str, strategy: str, settings: dict[str, Any], more: dict[str, Any]
) -> None:
    plain = run(scenario, strategy, settings, **more)
    fresh = run(scenario, strategy, {**settings, **MOBILE}, **more)
    found = fedzo.retime(plain, "mobile", query_s=0.05)
    assert torch.equal(found.solutions[-1], fresh.solutions[-1])
    assert [r.virtual for r in found.records] == [r.virtual for r in fresh.records]
    assert found.virtual == fresh.virtual
    again = fedzo.retime(fresh, "silo")
    assert [r.virtual for r in again.records] == [
        r.virtual for r in fedzo.retime(plain, "silo", query_s=0.05).records
    ]


def test_what_depends_on_its_fleet_is_refused() -> None:
    plain = run("quadratic", "fedzo", TINY)
    with pytest.raises(ConfigError, match="run it anew"):
        fedzo.retime(plain, "mobile", query_s=0.05, drop_out=0.1)
    with pytest.raises(ConfigError, match="fleet none has no times"):
        fedzo.retime(plain, "none")
    with pytest.raises(ConfigError, match=r"set fleet\.query_s"):
        fedzo.retime(plain, "mobile")
    with pytest.raises(ConfigError, match="name the fleet once"):
        fedzo.retime(plain, "mobile", preset="silo")
    with pytest.raises(ConfigError, match=r"fleet\.recovery=0\.3 has no effect"):
        fedzo.retime(plain, "mobile", query_s=0.05, recovery=0.3)
    lossy = run("quadratic", "fedzo", {**TINY, "faults.drop": 0.5})
    with pytest.raises(ConfigError, match="an answer is missing"):
        fedzo.retime(lossy, "mobile", query_s=0.05)
    with pytest.raises(ConfigError, match=r"unknown setting fleet\.query;"):
        fedzo.retime(plain, "mobile", query=1.0)
    over = {**TINY, **MOBILE, "strategy.participation": 0.4, "strategy.over_selection": 2.0}
    with pytest.raises(ConfigError, match="depends on its fleet"):
        fedzo.retime(run("quadratic", "fedzo", over, num_clients=10), "silo")
    bare = replace(plain, records=[replace(r, jobs=()) for r in plain.records])
    with pytest.raises(ConfigError, match="has no ledger"):
        fedzo.retime(bare, "mobile", query_s=0.05)
    short = run("quadratic", "fedzo", {**TINY, **MOBILE, "strategy.timeout_s": 3000.0})
    with pytest.raises(ConfigError, match="takes longer than"):
        fedzo.retime(short, "mobile", query_s=1e4)


def test_a_run_of_devices_in_a_file_is_retimed_on_others(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    lines = [f"{client},0.1,1e6,1e6" for client in range(5)]
    path.write_text("\n".join(["client,query_s,down,up", *lines]) + "\n")
    own = {"fleet.preset": "file", "fleet.file": str(path)}
    given = run("quadratic", "fedzo", {**TINY, **own})
    plain = run("quadratic", "fedzo", TINY)
    found = fedzo.retime(given, "mobile", query_s=0.05)
    assert found.virtual == fedzo.retime(plain, "mobile", query_s=0.05).virtual
    clocked = run("quadratic", "fedzo", {**TINY, **MOBILE})
    assert fedzo.retime(clocked, "file", file=str(path)).virtual == given.virtual
    path.write_text("\n".join(["client,query_s,down,up", *lines[:4]]) + "\n")
    with pytest.raises(ConfigError, match="no line for client 4"):
        run("quadratic", "fedzo", {**TINY, **own})


def test_directories_are_retimed_by_label_fleet_and_level(tmp_path: Path) -> None:
    for seed in (0, 1):
        run("quadratic", "fedzo", TINY, seed=seed, out=tmp_path / "runs" / f"seed-{seed}")
    words = ["retime", str(tmp_path), "--fleet", "mobile,nb-iot", "--set", "fleet.query_s=0.05"]
    figure = tmp_path / "times.png"
    found = CliRunner().invoke(
        app, [*words, "--reach", "value=100", "--figure", str(figure), "--json"]
    )
    assert found.exit_code == 0, found.output
    rows = json.loads(found.stdout)["rows"]
    assert [(row["label"], row["fleet"], row["seeds"]) for row in rows] == [
        ("runs", "mobile", 2),
        ("runs", "nb-iot", 2),
    ]
    assert rows[0]["seconds"] < rows[1]["seconds"]
    assert figure.read_bytes().startswith(b"\x89PNG")
    shown = CliRunner().invoke(app, [*words, "--reach", "value=-100"])
    assert "never" in shown.output
    unknown = CliRunner().invoke(app, [*words, "--reach", "vlaue=1"])
    assert unknown.exit_code == 2
    assert "vlaue" in unknown.stderr
    wrong = CliRunner().invoke(app, [*words, "--set", "client.mu=1"])
    assert wrong.exit_code == 2
    assert "settings of fleet" in wrong.stderr


def test_a_comparison_is_told_for_every_fleet(tmp_path: Path) -> None:
    words = [
        "compare", "quadratic", "--strategies", "fedzo,seedzo", "--seeds", "0,1", "--rounds", "3",
        "--set", "scenario.dim=12", "--set", "fleet.query_s=0.05", "--fleets", "mobile,silo",
        "--at", "virtual_seconds=1,1000", "--out", str(tmp_path / "both"), "--json",
    ]  # fmt: skip
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    names = [f"{name} on {fleet}" for name in ("fedzo", "seedzo") for fleet in ("mobile", "silo")]
    assert list(told["strategies"]) == names
    means = {name: row["mean"] for name, row in told["strategies"].items()}
    assert means["fedzo on mobile"]["final_value"] == means["fedzo on silo"]["final_value"]
    assert means["fedzo on mobile"]["virtual_s"] != means["fedzo on silo"]["virtual_s"]
    assert (tmp_path / "both" / "compare.png").exists()
    wrong = CliRunner().invoke(app, [*words[:-4], "--fleets", "train"])
    assert wrong.exit_code == 2
    refused = CliRunner().invoke(app, [*words[:-3], "--strategies", "fedzo,fedbuff_zo"])
    assert refused.exit_code == 2
    assert "goes on while clients work" in refused.stderr

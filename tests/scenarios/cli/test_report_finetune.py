"""`fedzo report` of `fedzo finetune`: the curves are those of curve.jsonl, by method and seed."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scenarios.cli import app
from scenarios.finetune.trainers import Finetuning
from scenarios.finetune.training import finetune


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned")
    for lr in (0.001, 0.01):
        for seed in (0, 1):
            finetune(_asked(lr=lr, seed=seed), out=out / f"mezo-{lr}" / f"seed-{seed}")
    finetune(_asked(method="first_order"), out=out / "first")
    return out


def test_a_report_has_the_curves_of_all_methods_and_seeds(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = _report(folder, "--out", page)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    data = json.loads(re.findall(r'id="fedzo-data">(.*?)</script>', text, re.DOTALL)[0])
    told = {method["label"]: method["runs"] for method in data["methods"]}
    assert {label: [run["seed"] for run in runs] for label, runs in told.items()} == {
        "first_order lr=0.001": [0],
        "mezo lr=0.001": [0, 1],
        "mezo lr=0.01": [0, 1],
    }
    looks = _looks(folder / "mezo-0.01" / "seed-1")
    [columns] = told["mezo lr=0.01"][1]["problems"]
    for name in [*data["axes"], *data["quantities"]]:
        assert columns[name] == [look[name] for look in looks]
    assert "<h1>digits_cnn, 3 methods, seeds 0, 1</h1>" in text
    assert "Paired comparison of the last test loss" in text
    last = (
        looks[-1]["test_accuracy"] + _looks(folder / "mezo-0.01" / "seed-0")[-1]["test_accuracy"]
    ) / 2
    assert f'title="{last!r}"' in text
    assert "Not finished" not in text


def test_a_run_that_was_killed_is_named(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "first", tmp_path / "first")
    lines = (run / "curve.jsonl").read_text().splitlines()
    (run / "curve.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert _report(run, "--out", tmp_path / "page.html").exit_code == 0
    assert f"Not finished: {run}." in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"task": "shifted_digits"}, "of the tasks digits_cnn, shifted_digits"),
        ({"seed": 0}, "seed 0 of first_order lr=0.001 is there twice"),
    ],
)
def test_runs_that_do_not_compare_end_in_a_sentence(
    change: dict[str, Any], why: str, folder: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(folder / "first", tmp_path / "other")
    asked = json.loads((run / "finetune.json").read_text())
    (run / "finetune.json").write_text(json.dumps({**asked, **change}))
    done = _report(folder, run, "--out", tmp_path / "x.html")
    assert done.exit_code == 2
    assert why in done.stderr.replace("\n", "")
    (run / "curve.jsonl").write_text("{}\n")
    done = _report(run, "--out", tmp_path / "x.html")
    assert (done.exit_code, "is no run of `fedzo finetune`" in done.stderr) == (2, True)
    assert not (tmp_path / "x.html").exists()


def test_fine_tuning_and_runs_are_not_compared(folder: Path, tmp_path: Path) -> None:
    run = ["run", "quadratic", "--strategy", "fedzo", "--rounds", "1", "--set", "scenario.dim=3"]
    assert CliRunner().invoke(app, [*run, "--out", str(tmp_path / "run")]).exit_code == 0
    done = _report(folder, tmp_path / "run", "--out", tmp_path / "x.html")
    assert (done.exit_code, "make a report of each" in done.stderr.replace("\n", " ")) == (2, True)


def _asked(**changed: Any) -> Finetuning:
    usual = {"method": "mezo", "lr": 0.001, "examples": 64, "forwards": 320, "looks": 3}
    return Finetuning(**{"task": "digits_cnn", **usual, **changed})


def _report(*words: object) -> Any:
    return CliRunner().invoke(app, ["report", *(str(word) for word in words)])


def _looks(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()]

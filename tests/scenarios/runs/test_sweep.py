"""Sweeps: spaces, proposals, early stops, kills, equal effort."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedzo.errors import CheckpointError, ConfigError, FedzoWarning, RunError
from fedzo.randomness import stream
from scenarios.cli.app import app
from scenarios.runs.config_file import read_experiment
from scenarios.runs.experiment import make_experiment
from scenarios.runs.measures import measure_of
from scenarios.runs.proposals import proposed, resolved
from scenarios.runs.simulate import simulate
from scenarios.runs.spaces import Choices, Range, parse_spaces
from scenarios.runs.sweep import tune
from scenarios.runs.sweep_plan import SweepPlan, begun_sweep
from scenarios.runs.trials import (
    Job,
    Trial,
    limits_of,
    read_trials,
    rescored,
    run_trial,
    written,
)
from scenarios.runs.tuning import tune_methods
from strategies.core.standstill import WARNING

FAST: dict[str, Any] = {"scenario.dim": 6, "client.num_directions": 2, "strategy.local_steps": 2}
BASE: dict[str, Any] = {
    "scenario": "quadratic",
    "strategy": "fedzo",
    "num_rounds": 4,
    "num_clients": 2,
    "settings": FAST,
}
RATE, LAWS = Range("log", 1e-3, 1.0), Choices(["orthogonal", "gaussian"])
SPACES = {"strategy.local_lr": RATE, "client.directions": LAWS}
PLAN = SweepPlan(base=BASE, spaces=SPACES, trials=6)


def test_settings_are_split_into_spaces_and_values() -> None:
    texts = ["a.b=1,2.5,x", "c.d=log:1e-3..0.1", "e.f=int:2..9", "g.h=lin:-1..1", "i.j=7"]
    rules = ["k.l=median,clip(radius=2.0) | mean", "m.n=nnm | clip(radius=1.0, steps=2)"]
    spaces, given = parse_spaces([*texts, *rules])
    assert spaces == {
        "a.b": Choices([1, 2.5, "x"]),
        "c.d": Range("log", 1e-3, 0.1),
        "e.f": Range("int", 2, 9),
        "g.h": Range("lin", -1, 1),
        "k.l": Choices(["median", "clip(radius=2.0) | mean"]),
    }
    assert given == ["i.j=7", "m.n=nnm | clip(radius=1.0, steps=2)"]


@pytest.mark.parametrize(
    "text", ["a=log:0..1", "a=lin:2..1", "a=int:1.5..3", "a=log:x..1", "a=lin:1", "a=log:1..inf"]
)
def test_a_range_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="is no range; write log:LOW"):
        parse_spaces([text])


def test_draws_lie_in_their_ranges_and_cover_them() -> None:
    generator = stream(0, "draws")
    rates = [float(RATE.draw(generator)) for _ in range(400)]
    assert 1e-3 <= min(rates) < 2e-3
    assert 0.5 < max(rates) <= 1
    below = sum(rate < math.sqrt(1e-3) for rate in rates)  # the middle of a log scale
    assert abs(below - 200) < 5 * 10
    assert {Range("int", 2, 4).draw(generator) for _ in range(60)} == {2, 3, 4}


def trial(index: int, score: float, **more: Any) -> Trial:
    settings = {"strategy.local_lr": 0.1, "client.directions": "gaussian", **more}
    return Trial(
        index=index, settings=settings, status="done", values=[score], queries=1,
        curves={"7": {0: 5.0, 1: score}}, score=score,
    )  # fmt: skip


def test_a_grid_is_every_combination_in_order() -> None:
    spaces = {"a": Choices([1, 2]), "b": Choices(["x", "y", "z"])}
    assert resolved("auto", spaces, None) == resolved("auto", spaces, 9) == ("grid", 6)
    assert resolved("auto", spaces, 5) == ("random", 5)
    first = proposed("grid", spaces, [], 4, 0)
    rest = proposed("grid", spaces, [trial(i, 0.0) for i in range(4)], 2, 0)
    assert [tuple(each.values()) for each in first + rest] == [
        (1, "x"), (1, "y"), (1, "z"), (2, "x"), (2, "y"), (2, "z")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("search", "trials", "said"),
    [
        ("grid", None, "--search grid needs values"),
        ("random", None, "--search random needs --trials"),
        ("auto", 0, "needs --trials with a number of 1 or more"),
        ("bayes", 3, "--search bayes must be auto, grid, random, tpe"),
    ],
)
def test_searches_that_cannot_be_are_refused(search: str, trials: int | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolved(search, SPACES, trials)


def test_tpe_repeats_and_learns() -> None:
    pytest.importorskip("optuna")
    rates = (0.001, 0.005, 0.01, 0.02, 0.1, 0.5, 1.0, 0.008)
    good = []
    for rate in rates:
        for law in LAWS.values:
            chosen = {"strategy.local_lr": rate, "client.directions": law}
            good.append(trial(len(good), abs(math.log10(rate) + 2), **chosen))
    first = proposed("tpe", SPACES, good, 4, 0)
    assert first == proposed("tpe", SPACES, good, 4, 0)
    assert first != proposed("tpe", SPACES, good, 4, 1)
    assert first[:2] == proposed("tpe", SPACES, good, 2, 0)
    near = [float(each["strategy.local_lr"]) for each in first]
    assert sum(0.002 < rate < 0.05 for rate in near) >= 3


def test_only_curves_above_the_median_of_four_are_stopped() -> None:
    before = [trial(i, float(i)) for i in range(4)]
    assert limits_of(before, [7]) == {"7": {0: 5.0, 1: 1.5}}
    assert limits_of(before[:3], [7]) == {"7": {}}
    job = Job(index=0, base=BASE, settings={}, seeds=[1000], measure="final_value", limits={})
    free = run_trial(job)
    assert (free.status, len(free.curves["1000"])) == ("done", 5)
    below = {r: v - 1e-9 for r, v in free.curves["1000"].items()}
    stopped = run_trial(replace(job, limits={"1000": below}))
    assert (stopped.status, stopped.score) == ("stopped", math.inf)
    assert max(stopped.curves["1000"]) == 1
    assert 0 < stopped.queries < free.queries
    assert run_trial(replace(job, limits={"1000": free.curves["1000"]})) == free


def test_a_sweep_finds_the_best_of_its_trials_on_other_seeds(tmp_path: Path) -> None:
    found = tune(PLAN, out=tmp_path / "sweep")
    assert [each.index for each in found.trials] == list(range(6))
    assert found.best.score == min(each.score for each in found.trials)
    assert found.queries == sum(each.queries for each in found.trials) > 0
    again = make_experiment(**read_experiment(tmp_path / "sweep" / "best.toml"))
    assert again.settings == found.experiment.settings
    assert again.settings["strategy.local_lr"] == found.best.settings["strategy.local_lr"]
    assert not {*PLAN.tuned_on} & {*PLAN.seeds}
    longer = tune(replace(PLAN, trials=8), out=tmp_path / "sweep", resume=True)
    assert longer.trials[:6] == found.trials


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spaces": {}}, "nothing is to be chosen; give a setting several values"),
        ({"tuning_seeds": (2, 5)}, r"\[2\] are among both; name other --tuning-seeds"),
        ({"spaces": {"strategy.local_rate": RATE}}, "unknown setting strategy.local_rate"),
        ({"spaces": {"strategy.local_lr": Range("lin", -1, 1)}}, "strategy.local_lr=-1.0 must be"),
    ],
)
def test_what_cannot_be_swept_is_told_before_anything_runs(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        tune(replace(PLAN, **change), out=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["strategy.local_steps=log:1..20"], "strategy.local_steps=int:1..20"),
        (["client.mu=0.1,0.2", "--seeds", "0,0"], "must not repeat"),
        (["client.mu=0.1,0.2", "--tuning-seeds", "7,7"], "must not repeat"),
        (["client.mu=lgo:1..2"], "is no range"),
        (["client.mu=log10:1E-3..1E-1"], "is no range"),
        (["strategy.aggregator=mean,trimmed_mean"], "has no effect with strategy.num_byzantine=0"),
        (["strategy.num_byzantine=1,2"], "must be 0 for aggregator='mean'"),
        (["strategy.lr_period=0,5", "--set", "strategy.lr_decay=inverse,no"], "lr_decay='no'"),
    ],
)
def test_what_would_fail_after_trials_is_told_before_them(
    more: list[str], said: str, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    words = ["sweep", "quadratic", "--rounds", "1", "--trials", "2", "--out", str(out)]
    told = CliRunner().invoke(app, [*words, "--set", *more])
    assert told.exit_code == 2
    assert said in " ".join(told.stderr.split())
    assert not out.exists()


@pytest.mark.parametrize("name", ["foo", "scenario", "stops", "metrics", "seed"])
def test_a_measure_that_nobody_tells_is_told_with_those_that_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' is none of best_value, .*final_value, .*gap"):
        tune(replace(PLAN, measure=f"highest:{name}"), out=tmp_path / "sweep")


def test_the_better_end_of_a_measure_is_known_or_said() -> None:
    assert not measure_of("mean_queries").higher
    assert measure_of("success_rate").higher
    assert measure_of("f1_dog").higher
    assert not measure_of("lowest:shift").higher
    with pytest.raises(ConfigError, match=r"did you mean gap\? .*lowest:gapp or highest:gapp"):
        tune(replace(PLAN, measure="gapp"))


def test_the_cheapest_trial_is_the_best_by_queries() -> None:
    spaces = {"client.num_directions": Choices((3, 2))}
    found = tune(replace(PLAN, spaces=spaces, trials=2, measure="queries", search="grid"))
    assert found.best.settings == {"client.num_directions": 2}


def test_an_infinite_measure_is_no_end_and_a_range_keeps_its_ends() -> None:
    trial = run_trial(Job(index=0, base=BASE, settings={}, seeds=[0], measure="gap", limits={}))
    assert rescored(replace(trial, values=[2.0]), "highest:psnr").score == -2.0
    assert rescored(replace(trial, values=[math.inf]), "highest:psnr").score == math.inf
    assert rescored(replace(trial, values=[-math.inf]), "gap").score == math.inf
    assert Range("lin", 1.00004, 1.99999).ends == [1.00004, 1.99999]
    assert Range("lin", 0.5, 0.99999).cut(0.99999) == 0.99999
    assert Range("lin", 0.5, 0.99999).cut(0.123456) == 0.5


def test_trials_that_were_ranked_by_an_earlier_release_are_ranked_anew(tmp_path: Path) -> None:
    spaces = {"client.num_directions": Choices((3, 2))}
    plan = replace(PLAN, spaces=spaces, trials=2, measure="queries", search="grid")
    tune(plan, out=tmp_path / "sweep")
    file = tmp_path / "sweep" / "trials.jsonl"
    stored = read_trials(file)
    file.write_text("".join(written(replace(t, score=-t.score)) + "\n" for t in stored))
    found = tune(plan, out=tmp_path / "sweep", resume=True)
    assert found.best.settings == {"client.num_directions": 2}


def test_another_sweep_and_a_damaged_line_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    tune(replace(PLAN, trials=1), out=out)
    with pytest.raises(ConfigError, match="already holds a sweep; add --resume"):
        tune(PLAN, out=out)
    with pytest.raises(ConfigError, match="holds another sweep: measure differ"):
        tune(replace(PLAN, measure="best_value"), out=out, resume=True)
    file = out / "trials.jsonl"
    file.write_text(file.read_text().replace('"done"', '"dome"'))
    with pytest.raises(CheckpointError, match=r"line 1 of .* is damaged"):
        tune(PLAN, out=out, resume=True)


def test_trials_that_all_fail_end_in_a_sentence() -> None:
    settings = {**FAST, "faults.drop_replies": 1.0}
    plan = replace(PLAN, base={**BASE, "settings": settings}, trials=1)
    with pytest.raises((RunError, ConfigError)):
        tune(plan)


def command(out: Path) -> list[str]:
    swept = [
        "--set",
        "strategy.local_lr=log:1e-3..1",
        "--set",
        "client.directions=orthogonal,gaussian",
    ]
    sizes = ["--rounds", "15", "--clients", "2", "--trials", "6", "--seeds", "0"]
    small = ["--set", "scenario.dim=10", "--set", "client.num_directions=5"]
    return ["sweep", "quadratic", "--strategy", "fedzo", *swept, *sizes, *small, "--out", str(out)]


def test_a_sweep_that_is_cut_off_twice_ends_with_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(PLAN, out=tmp_path / "whole")
    place, resume = tmp_path / "cut", False
    for after in (1, 3):
        left = iter(range(after))

        def run_some(job: Job, left: Any = left) -> Trial:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return run_trial(job)

        monkeypatch.setattr("scenarios.runs.trial_workers.run_trial", run_some)
        with pytest.raises(KeyboardInterrupt):
            tune(PLAN, out=place, resume=resume)
        with (place / "trials.jsonl").open("a") as lines:
            lines.write('{"index": 99, "cut o')  # what a kill leaves of a line
        resume = True
    monkeypatch.setattr("scenarios.runs.trial_workers.run_trial", run_trial)
    found = tune(PLAN, out=place, resume=True)
    assert found.trials == whole.trials
    for name in ("trials.csv", "best.toml"):
        assert (place / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_sweep_cannot_be_made_shorter_than_it_is(tmp_path: Path) -> None:
    plan = SweepPlan(base=BASE, spaces=SPACES, seeds=(0,), search="random", trials=4)
    tune(plan, out=tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    with pytest.raises(ConfigError, match="4 trials of this sweep have run"):
        tune(replace(plan, trials=3), out=tmp_path, resume=True)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert len(tune(replace(plan, trials=5), out=tmp_path, resume=True).trials) == 5


@pytest.mark.slow
def test_a_sweep_that_is_killed_twice_ends_with_the_same_table(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = CliRunner().invoke(app, command(whole))
    assert done.exit_code == 0, done.output
    for after in (1, 4):
        resume = ["--resume"] if killed.exists() else []
        process = subprocess.Popen(
            [sys.executable, "-m", "scenarios.cli", *command(killed), *resume],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        file, end = killed / "trials.jsonl", time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            if file.exists() and file.read_text().count("\n") >= after:
                break
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (killed / "best.toml").exists()
    with (killed / "trials.jsonl").open("a") as file_again:
        file_again.write('{"index": 99, "cut o')  # what a kill leaves of a line
    done = CliRunner().invoke(app, [*command(killed), "--resume"])
    assert done.exit_code == 0, done.output
    for name in ("trials.csv", "best.toml"):
        assert (killed / name).read_text() == (whole / name).read_text()
    means = [json.loads((each / "compare.json").read_text()) for each in (whole, killed)]
    values = [each["strategies"]["best"]["mean"]["final_value"] for each in means]
    assert values[0] == values[1]


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("where", [["--processes", "3"], ["--ray", "local", "--processes", "2"]])
def test_where_trials_run_does_not_change_the_table(where: list[str], tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert CliRunner().invoke(app, command(alone)).exit_code == 0
    arguments = [*command(together), *where]
    done = subprocess.run(
        [sys.executable, "-m", "scenarios.cli", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (alone / "trials.csv").read_text() == (together / "trials.csv").read_text()


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_cluster_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    arguments = [*command(tmp_path / "out"), "--ray", "127.0.0.1:9"]
    done = subprocess.run(
        [sys.executable, "-m", "scenarios.cli", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Ray does not start at '127.0.0.1:9'" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.json"))


def test_every_method_of_a_comparison_gets_as_many_trials(tmp_path: Path) -> None:
    base = {name: value for name, value in BASE.items() if name != "strategy"}
    base["settings"] = {"scenario.dim": 6, "client.num_directions": 2, "b:strategy.local_steps": 3}
    methods = {"fedzo": "fedzo", "b": "fedzo", "seedzo": "seedzo"}
    spaces = {"client.mu": Range("log", 1e-3, 0.1), "b:strategy.local_lr": RATE}
    tuned = tune_methods(base, methods, spaces, [0], trials=3, out=tmp_path)
    assert [len(each.trials) for each in tuned.found.values()] == [3, 3, 3]
    assert {*tuned.found["b"].plan.spaces} == {"client.mu", "strategy.local_lr"}
    assert {*tuned.found["seedzo"].plan.spaces} == {"client.mu"}
    chosen = tuned.base["settings"]
    for label, found in tuned.found.items():
        assert chosen[f"{label}:client.mu"] == found.best.settings["client.mu"]
        assert (tmp_path / "tuning" / label / "trials.csv").exists()
    base["settings"] = {}
    both = {"square": "square", "fedzo": "fedzo"}
    with pytest.raises(ConfigError, match="square has none of the settings that are to be chosen"):
        tune_methods(base, both, {"client.mu": RATE}, [0], trials=2)


def test_compare_tunes_and_says_what_it_has_cost(tmp_path: Path) -> None:
    arguments = [
        "compare", "quadratic", "--strategies", "fedzo,seedzo", "--seeds", "0", "--rounds", "3",
        "--clients", "2", "--set", "scenario.dim=6", "--set", "client.mu=0.001,0.1", "--tune", "2",
        "--out", str(tmp_path / "c"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    tuning = json.loads(done.stdout)["tuning"]
    assert {label: each["trials"] for label, each in tuning.items()} == {"fedzo": 2, "seedzo": 2}
    assert all(each["queries"] > 0 for each in tuning.values())
    done = CliRunner().invoke(app, [*arguments, "--resume"])
    assert "fedzo was tuned by 2 trials" in done.output
    done = CliRunner().invoke(app, ["compare", "quadratic", "--tune", "2"])
    assert (done.exit_code, "has nothing to choose" in done.output) == (2, True)


@pytest.mark.more
def test_a_comparison_that_was_killed_while_it_tuned_goes_on(tmp_path: Path) -> None:
    """Trials that were paid for are used; nothing of the comparison itself has begun."""
    words = [
        "compare", "quadratic", "--strategies", "fedzo,seedzo", "--seeds", "0", "--rounds", "2",
        "--clients", "2", "--set", "scenario.dim=6", "--set", "client.mu=0.001,0.1", "--tune", "2",
    ]  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    usual = CliRunner().invoke(app, [*words, "--json", "--out", str(whole)])
    assert usual.exit_code == 0, usual.output
    left = cut / "tuning" / "fedzo"
    left.mkdir(parents=True)
    (left / "sweep.json").write_text((whole / "tuning" / "fedzo" / "sweep.json").read_text())
    first = (whole / "tuning" / "fedzo" / "trials.jsonl").read_text().splitlines()[0]
    (left / "trials.jsonl").write_text(first + "\n")
    done = CliRunner().invoke(app, [*words, "--json", "--out", str(cut), "--resume"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["tuning"] == json.loads(usual.stdout)["tuning"]


@pytest.mark.filterwarnings("error::fedzo.errors.FedzoWarning")
def test_steps_that_are_too_small_are_tried_without_a_warning() -> None:
    base = {**BASE, "settings": {**FAST, "strategy.local_lr": 1e-12}}
    job = Job(index=0, base=base, settings={}, seeds=[0], measure="final_value", limits={})
    trial = run_trial(job)
    assert trial.status == "done"
    with pytest.raises(FedzoWarning, match=WARNING):
        simulate(make_experiment(**base, seed=0))


def test_a_sweep_goes_on_by_its_directory_alone(tmp_path: Path) -> None:
    words = command(tmp_path / "whole")
    whole = CliRunner().invoke(app, [*words, "--json"])
    assert whole.exit_code == 0, whole.output
    shorter = [w if w != "6" else "2" for w in command(tmp_path / "cut")]
    assert CliRunner().invoke(app, shorter).exit_code == 0
    cut = tmp_path / "cut"
    plan = begun_sweep(cut)
    assert plan.trials == 2
    assert {**plan.to_json(), "trials": 6} == json.loads(
        (tmp_path / "whole/sweep.json").read_text()
    )
    longer = CliRunner().invoke(app, ["sweep", "--resume", str(cut), "--trials", "6", "--json"])
    assert longer.exit_code == 0, longer.output
    table = (tmp_path / "whole" / "trials.csv").read_text()
    assert (cut / "trials.csv").read_text() == table
    assert json.loads(longer.stdout)["best"] == json.loads(whole.stdout)["best"]
    mixed = CliRunner().invoke(app, ["sweep", "--resume", str(cut), "--seeds", "3"])
    assert mixed.exit_code == 2
    assert "leave out what else says how" in mixed.output.replace("\n", " ")
    nothing = CliRunner().invoke(app, ["sweep", "--resume", str(tmp_path / "no")])
    assert nothing.exit_code == 2
    assert "holds no sweep" in nothing.output.replace("\n", " ")


@pytest.mark.more
def test_more_trials_stay_when_a_sweep_goes_on_again(tmp_path: Path) -> None:
    """And the runs of what was the best before them are made anew."""
    cut, rates = tmp_path / "cut", ["--set", "strategy.local_lr=log:1e-5..1"]
    small = ["--clients", "2", "--rounds", "3", "--set", "scenario.dim=6", "--seeds", "0"]
    first = ["sweep", "quadratic", *rates, *small, "--trials", "1", "--out", str(cut)]
    assert CliRunner().invoke(app, first).exit_code == 0
    longer = CliRunner().invoke(app, ["sweep", "--resume", str(cut), "--trials", "6", "--json"])
    assert longer.exit_code == 0, longer.output
    best = (cut / "best.toml").read_text()
    again = CliRunner().invoke(app, ["sweep", "--resume", str(cut), "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["trials"] == json.loads(longer.stdout)["trials"]
    assert (cut / "best.toml").read_text() == best
    assert json.loads(again.stdout)["best"] != json.loads(longer.stdout)["trials"][0]["settings"]


def test_a_plan_with_infinite_settings_is_read_back(tmp_path: Path) -> None:
    base = {**BASE, "engine": "ray", "settings": {**FAST, "strategy.timeout_s": math.inf}}
    plan = replace(PLAN, base=base)
    (tmp_path / "sweep.json").write_text(json.dumps(plan.to_json()))
    assert begun_sweep(tmp_path).base["settings"] == base["settings"]
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match="damaged, or of another release"):
        begun_sweep(tmp_path)


def test_what_a_trial_that_fails_has_asked_is_counted() -> None:
    settings = {"strategy.min_answers": 2, "faults.crash": 0.4}
    trial = run_trial(
        Job(index=0, base=BASE, settings=settings, seeds=[0], measure="final_value", limits={})
    )
    asked = re.search(r"(\d+) of \d+ clients answered.*had asked ([\d,]+) queries", trial.status)
    assert asked, trial.status
    assert trial.queries >= int(asked[2].replace(",", "")) > 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_values_that_do_not_go_together_are_a_trial_that_fails(order: tuple[int, int]) -> None:
    """It costs nothing; whichever comes first, values that need each other can be swept."""
    names = ("mean", "trimmed_mean")
    plan = replace(
        PLAN,
        spaces={
            "strategy.aggregator": Choices([names[i] for i in order]),
            "strategy.num_byzantine": Choices([0, 1]),
            "strategy.lr_decay": Choices(["inverse", "sqrt"]),
            "strategy.lr_period": Choices([0, 2]),
        },
        base={**BASE, "num_clients": 4, "num_rounds": 1},
        trials=None,
        prune=False,
    )
    ended = {tuple(trial.settings.values())[:2]: trial for trial in tune(plan).trials}
    refused = ended.pop(("mean", 1))
    assert refused.status.startswith("failed: num_byzantine=1 must be 0")
    assert refused.queries == 0
    assert {trial.status for trial in ended.values()} == {"done"}


def test_an_infinite_value_is_kept(tmp_path: Path) -> None:
    spaces = {
        "strategy.outlier_multiple": Choices((math.inf, 100.0)),
        "client.mu": Choices((0.1, 0.01)),
    }
    liars = {"strategy.num_byzantine": 1, "strategy.aggregator": "median"}
    base = {**BASE, "num_clients": 4, "settings": {**FAST, **liars}}
    plan = replace(PLAN, base=base, spaces=spaces, trials=None, search="grid")
    whole = tune(plan, out=tmp_path)
    (tmp_path / "best.toml").unlink()
    assert tune(plan, out=tmp_path, resume=True) == whole
    assert "inf,0.1" in (tmp_path / "trials.csv").read_text()


def test_settings_in_another_order_are_the_same_sweep(tmp_path: Path) -> None:
    spaces = {"client.mu": Choices((0.1, 0.01, 0.001)), "client.num_directions": Choices((2, 3))}
    plan = replace(PLAN, spaces=spaces, trials=None, search="grid")
    whole = tune(plan, out=tmp_path)
    table = (tmp_path / "trials.csv").read_text()
    lines = (tmp_path / "trials.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_text("".join(lines[:3]))
    turned = replace(plan, spaces=dict(reversed(spaces.items())))
    assert tune(turned, out=tmp_path, resume=True).best == whole.best
    assert (tmp_path / "trials.csv").read_text() == table


def test_random_search_among_values_tries_none_twice() -> None:
    spaces = {"a": Choices((1, 2, 3)), "b": Choices((True, False))}
    drawn = proposed("random", spaces, [], 6, 0)
    assert len({tuple(settings.values()) for settings in drawn}) == 6
    assert drawn[:3] == proposed("random", spaces, [], 3, 0)
    assert drawn != proposed("random", spaces, [], 6, 1)
    assert proposed("random", spaces, [], 7, 0)[6] == drawn[0]
    trial = Trial(
        index=0, settings=drawn[4], status="done", values=[1.0], queries=0, curves={}, score=1.0
    )
    others = [drawn[i] for i in (0, 1, 2, 3, 5)]
    assert proposed("random", spaces, [trial], 5, 0) == others, "of an earlier release"


def test_trials_of_several_problems_are_not_stopped_by_the_first() -> None:
    """F is the mean over images, and what is good on the first one may not be on the others."""
    base = {
        "scenario": "attack",
        "strategy": "seedzo",
        "num_rounds": 4,
        "num_clients": 2,
        "settings": {"scenario.num_images": 2},
    }
    spaces = {"client.mu": Choices((0.4, 0.2, 0.1, 0.05, 0.001, 0.002))}
    plan = SweepPlan(base=base, spaces=spaces, seeds=(0,), tuning_seeds=(7,), search="grid")
    found = tune(plan)
    assert {trial.status for trial in found.trials} == {"done"}
    assert {trial.problems for trial in found.trials} == {2}

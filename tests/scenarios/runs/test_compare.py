"""Comparisons: labels, positions, and files."""

import itertools
import math
from pathlib import Path

import pytest

from fedzo.errors import ConfigError
from scenarios.runs.compare import compare, planned
from scenarios.runs.config_file import parse_positions, read_comparison
from scenarios.runs.milestones import Milestone

BASE = {"scenario": "quadratic", "num_rounds": 4, "settings": {"scenario.dim": 6}}


def test_one_strategy_under_two_labels() -> None:
    settings = {"scenario.dim": 6, "slow:strategy.local_lr": 1e-6}
    result = compare({**BASE, "settings": settings}, ["fedzo", "slow=fedzo"], [0, 1])
    assert [row.strategy for row in result.rows] == ["fedzo", "slow"]
    fast, slow = result.rows
    assert fast.means["final_value"] < slow.means["final_value"]


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_said_of_a_label_holds_whatever_comes_first(turned: bool) -> None:
    typed = {"fedzo:client.mu": 0.1, "client.mu": 0.01, "scenario.dim": 6}
    given = dict(reversed(typed.items())) if turned else typed
    found = planned({**BASE, "settings": given}, ["fedzo", "seedzo"], [0])
    assert {name: made.settings["client.mu"] for name, made in found} == {
        "fedzo": 0.1,
        "seedzo": 0.01,
    }


def test_a_setting_goes_to_those_who_use_it() -> None:
    """local_lr is for fedzo and the paper's FZooS, not for the improved one, which has no use."""
    settings = {
        "scenario.dim": 6,
        "strategy.local_lr": 0.02,
        "paper:strategy.variant": "paper",
        "paper:client.num_features": 10,
    }
    result = compare({**BASE, "settings": settings}, ["fedzo", "fzoos", "paper=fzoos"], [0])
    assert len(result.rows) == 3
    with pytest.raises(ConfigError, match=r"strategy\.local_lr=0\.02 has no effect"):
        compare({**BASE, "settings": {"strategy.local_lr": 0.02}}, ["fzoos"], [0])


def test_milestones_hold_the_lowest_f_so_far() -> None:
    at = {"rounds": [0, 2, 4], "queries": [10**9]}
    result = compare(BASE, ["fedzo"], [0, 1, 2], at=at)
    first, middle, last, all_of_it = result.milestones
    starts = [run["initial_value"] for run in result.runs]
    assert list(first.values["fedzo"]) == starts
    assert list(all_of_it.values["fedzo"]) == [run["best_value"] for run in result.runs]
    assert all(a >= b for a, b in zip(middle.values["fedzo"], last.values["fedzo"], strict=True))
    ordered = sorted(last.values["fedzo"])
    assert last.to_json()["median"]["fedzo"] == ordered[1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["fedzo", "fedzo"], r"LABEL=NAME runs one of them twice"),
        (["a/b=fedzo"], r"label 'a/b' of strategy 'fedzo' must be letters"),
        (["..=fedzo"], r"label '\.\.' of strategy"),
        (["x=nobody"], r"unknown strategy 'nobody'"),
        ([], r"at least one strategy"),
    ],
)
def test_bad_labels_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(BASE, names, [0])


def test_a_wrong_axis_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"axis 'days' is unknown; allowed: queries, rounds"):
        compare(BASE, ["fedzo"], [0], at={"days": [1]})


def test_a_position_before_the_first_record_is_unknown() -> None:
    result = compare({**BASE, "scenario": "quadratic"}, ["fedzo"], [0], at={"seconds": [0.0]})
    assert result.to_json()["milestones"][0]["median"] == {"fedzo": None}
    with pytest.raises(ConfigError, match=r"must be 0 or more"):
        compare(BASE, ["fedzo"], [0], at={"queries": [-1]})


@pytest.mark.parametrize("order", itertools.permutations([1.0, 2.0, math.nan]))
def test_a_run_without_a_value_is_the_worst_of_a_median(order: tuple[float, ...]) -> None:
    assert Milestone("queries", 10, {"a": order}).to_json()["median"] == {"a": 2.0}
    assert Milestone("queries", 10, {"a": [math.nan, *order]}).to_json()["median"] == {"a": None}


def test_a_file_holds_a_comparison(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'scenario = "quadratic"\nstrategies = ["fedzo", "p=fedprox"]\nseeds = [3]\n'
        '[at]\nqueries = [10, 20]\n[set.scenario]\ndim = 4\n[set."p:strategy"]\nlocal_steps = 2\n'
    )
    plan = read_comparison(path)
    assert plan.strategies == ["fedzo", "p=fedprox"]
    assert plan.seeds == [3]
    assert plan.at == {"queries": [10, 20]}
    assert plan.experiment["settings"] == {"scenario.dim": 4, "p:strategy.local_steps": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = 3", r"strategies must be a list of names, seeds of numbers"),
        ('seeds = ["x"]', r"seeds of numbers"),
        ("at = 3", r"\[at\] must hold lists of numbers"),
        ('[at]\nqueries = ["x"]', r"\[at\] must hold lists of numbers"),
        ("colour = 1", r"unknown setting colour"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_comparison(path)


def test_positions() -> None:
    texts = ["queries=5000,1e4", "rounds=3", "queries=7"]
    assert parse_positions(texts) == {"queries": [5000.0, 10000.0, 7.0], "rounds": [3.0]}
    for text in ("queries", "queries=", "queries=x"):
        with pytest.raises(ConfigError, match=r"is not AXIS=N,N"):
            parse_positions([text])


@pytest.mark.more
@pytest.mark.source_tree
@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[3] / "benchmarks" / "fzoos").glob("*.toml")),
    ids=lambda path: path.stem,
)
def test_the_configurations_of_the_benchmark_are_valid(path: Path) -> None:
    """Every setting exists; nothing is run, because no rounds are asked for."""
    from scenarios.runs.compare import planned

    plan = read_comparison(path)
    assert planned(plan.experiment, plan.strategies, plan.seeds)

"""Tables of runs: positions, levels, directions, and what is particular about the runs."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stored_runs import experiment_of, records_of, result_of, write_methods, write_run

import fedzo
from fedzo.errors import ConfigError, FedzoWarning
from scenarios.runs.compare import compare
from scenarios.runs.gathered import gather


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, two seeds each, a value every 50 queries."""
    methods = {"fast": [[9.0, 5.0, 2.0, 2.5], [9.0, 6.0, 3.0, 1.0]],
               "slow": [[9.0, 8.0, 4.0, 4.0], [9.0, 7.0, 5.0]]}  # fmt: skip
    return write_methods(tmp_path_factory.mktemp("runs") / "both", methods)


def means(table: Any) -> dict[str, dict[str, float | None]]:
    return {panel.measure: {row.method: row.mean for row in panel.rows} for panel in table.panels}


def test_the_end_and_positions_are_as_the_figure_shows_them(both: Path) -> None:
    table = fedzo.table(both, at=["end", "queries=120", "rounds=0,1"])
    assert means(table) == {
        "value at the end": {"fast": 1.75, "slow": 4.5},
        "value at 120 queries": {"fast": 2.5, "slow": 4.5},
        "value at 0 rounds": {"fast": 9.0, "slow": 9.0},
        "value at 1 rounds": {"fast": 5.5, "slow": 7.5},
    }
    axes = fedzo.plot(both)
    for line, mean in zip(axes.lines, (2.5, 4.5), strict=True):
        x, y = line.get_data()
        assert dict(zip(x, y, strict=True))[100.0] == mean
    best = fedzo.table(both, at=["end", "queries=150"], best=True)
    assert means(best) == {
        "best value": {"fast": 1.5, "slow": 4.5},
        "best value within 150 queries": {"fast": 1.5, "slow": 4.5},
    }
    assert any("Ended before 150 queries, so that the best value counts: 1 of 2 of slow." in note
               for note in best.notes)  # fmt: skip


def test_a_level_is_counted_in_what_is_named(both: Path) -> None:
    table = fedzo.table(both, target=[4.0, 2.0], x="rounds")
    assert means(table) == {
        "rounds until value is at most 4": {"fast": 2.0, "slow": None},
        "rounds until value is at most 2": {"fast": 2.5, "slow": None},
    }
    assert any("slow does not get there with seed 1: that ranks behind" in n for n in table.notes)
    slow = table.panels[0].rows[1].difference
    assert slow is not None
    assert (slow.paired.wins, slow.paired.losses, slow.paired.ties) == (0, 1, 1)


def test_a_run_that_ended_earlier_has_not_lost() -> None:
    values = [9.0, 8.0, 7.0, 6.0, 5.0]
    runs = {
        "long": [result_of(values, seed) for seed in range(6)],
        "short": [result_of(values[:3], seed) for seed in range(6)],
    }
    [panel] = fedzo.table(runs, target=5.5).panels
    assert [row.difference for row in panel.rows] == [None, None]
    assert any("short or long ended before the other got there on 6 of 6 seeds" in note
               for note in panel.notes)  # fmt: skip


def test_more_is_better_of_an_accuracy_and_where_it_is_said() -> None:
    runs = {
        "a": [result_of([0.1, 0.9, 0.6], seed, metric="test_accuracy") for seed in (0, 1)],
        "b": [result_of([0.1, 0.2, 0.7], seed, metric="test_accuracy") for seed in (0, 1)],
    }
    assert fedzo.table(runs, y="test_accuracy").panels[0].reference == "b"
    best = fedzo.table(runs, y="test_accuracy", best=True)
    assert best.panels[0].reference == "a"
    assert best.panels[0].title == "best test accuracy (higher is better)"
    assert fedzo.table(runs, y="test_accuracy", higher=False).panels[0].reference == "a"
    until = fedzo.table(runs, y="test_accuracy", target=0.65)
    assert means(until) == {"queries until test accuracy is at least 0.65": {"a": 50, "b": 100}}
    assert not until.panels[0].higher


def test_what_is_particular_of_the_runs_is_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "seed-0", records_of([2.0, 1.0]), 0)
    write_run(tmp_path / "a" / "seed-1", records_of([2.0, None]), 1, finished=False)
    write_run(tmp_path / "b" / "seed-0", records_of([2.0, 1.5]), 0, settings={"scenario.dim": 5})
    write_run(tmp_path / "b" / "seed-2", records_of([None, None]), 2)
    told = "\n".join(fedzo.table(tmp_path).notes)
    assert f"Not finished: {tmp_path}/a/seed-1." in told
    assert "Methods have different seeds: means are over each method's own" in told
    assert "scenario.dim differs (a 3, b 5)" in told
    assert "b has no value there with seed 2, left out." in told


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"y": "valeu"}, r"unknown quantity valeu; did you mean value\?"),
        ({"at": "querys=5"}, r"axis 'querys' is unknown; allowed: queries"),
        ({"at": "5000"}, r"--at '5000' is neither `end` nor AXIS=N,N,\.\.\.; write for example"),
        ({"at": "queries=x"}, r"--at 'queries=x' is not AXIS=N,N"),
        ({"at": "queries=-1"}, r"must be 0 or more"),
        ({"at": "epsilon=1"}, r"no run has a value of value at 1 epsilon"),
        ({"target": 0.001}, r"no run tells queries until value is at most 0\.001; take a level"),
        ({"target": float("nan")}, r"must be finite numbers"),
        ({"x": "rounds"}, r"x=rounds is what a target is counted in; add a target"),
        ({"target": 4.0, "best": True}, r"best is for a position"),
        ({"baseline": "fas"}, r"unknown baseline fas; did you mean fast\?"),
        ({"test": "t"}, r"unknown test t"),
    ],
)
def test_what_cannot_be_compared_is_refused(both: Path, wish: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        fedzo.table(both, **wish)


def test_runs_come_from_directories_stored_runs_results_and_mappings(both: Path) -> None:
    stored = fedzo.load_runs(both)
    ways: list[Any] = [
        both, str(both), [both], [both / "fast", both / "slow"], stored,
        {"fast": stored[:2], "slow": [stored[2], both / "slow" / "seed-1"]},
        {"fast": [one.numbers for one in stored[:2]], "slow": both / "slow"},
    ]  # fmt: skip
    for runs in ways:
        labels = {label: [r.final_value for r in some] for label, some in gather(runs).items()}
        assert labels == {"fast": [2.5, 1.0], "slow": [4.0, 5.0]}
    assert list(gather([result_of([1.0], 0), result_of([2.0], 1)])) == ["fedzo"]


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ([], "there are no runs; give directories of runs"),
        ({}, "there are no runs"),
        (3, "int '3' is no run; give directories"),
        ([result_of([1.0]), result_of([2.0])], "fedzo has seed 0 2 times; give each method"),
    ],
)  # fmt: skip
def test_what_is_no_run_is_refused(runs: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        gather(runs)


def test_a_copied_seed_and_another_scenario_are_refused(both: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "seed-0", records_of([1.0]), 0)
    write_run(tmp_path / "a" / "seed-9", records_of([1.0]), 0)
    with pytest.raises(ConfigError, match=r"a has seed 0 2 times \(.*seed-0, .*seed-9\)"):
        fedzo.table(tmp_path)
    write_run(tmp_path / "c", records_of([1.0]), scenario="multimodal")
    with pytest.raises(ConfigError, match="of several scenarios, whose values do not compare"):
        fedzo.table([both, tmp_path / "c"])


def test_compare_tells_the_differences_that_the_table_does(tmp_path: Path) -> None:
    base = {"scenario": "quadratic", "num_rounds": 2, "settings": {"scenario.dim": 4}}
    found = compare(base, ["fedzo", "seedzo"], [0, 1, 2], out=tmp_path / "out")
    stored = fedzo.table(tmp_path / "out", y="value").panels[0]
    assert found.paired is not None
    assert {r.method: r for r in found.paired.rows} == {r.method: r for r in stored.rows}
    assert found.to_json()["paired"]["rows"][0]["seeds"] == 3


def test_f_of_too_few_clients_is_told_of_where_it_is_looked_at() -> None:
    records = records_of([9.0, 5.0, 4.0, 3.0])
    partly = replace(
        result_of([9.0, 5.0, 4.0, 3.0]),
        records=[replace(record, partial=record.round_index == 1) for record in records],
    )
    said = "F of a at 1 rounds with seed 0 is of too few clients"
    runs = {"a": [partly], "b": [result_of([9.0, 4.0, 3.0, 2.0])]}
    told = {at: str(fedzo.table(runs, at=at)) for at in ("rounds=1", "rounds=2", "end")}
    assert [said in told[at] for at in told] == [True, False, False]
    assert said not in str(fedzo.table(runs, at="rounds=1", best=True))
    legend = fedzo.plot(runs).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "a (F in part of too few clients)",
        "b",
    ]


def test_runs_of_other_settings_are_no_seeds_of_one_method(tmp_path: Path) -> None:
    one = result_of([9.0, 5.0], 0)
    other = replace(
        result_of([8.0, 4.0], 1), experiment=experiment_of(1, settings={"client.mu": 0.5})
    )
    said = r"Runs of a are not seeds of one experiment: they differ in client\.mu"
    assert re.search(said, str(fedzo.table({"a": [one, other]})))
    with pytest.warns(FedzoWarning, match=said):
        fedzo.plot({"a": [one, other]})


def test_methods_that_ended_after_more_of_everything_are_told_of() -> None:
    runs = {"a": [result_of([9.0, 5.0])], "b": [result_of([9.0, 5.0, 4.0])]}
    said = "Methods ended after other numbers of rounds and queries (a 1 and 50, b 2 and 100)."
    assert said in str(fedzo.table(runs))
    as_many = [result_of([9.0, 5.0], per_round=100)]
    assert "Methods ended after" not in str(fedzo.table({**runs, "a": as_many}))


def test_a_run_that_has_only_begun_is_left_out(both: Path, tmp_path: Path) -> None:
    place = tmp_path / "both"
    shutil.copytree(both, place)
    begun = place / "slow" / "seed-1"
    (begun / "history.jsonl").write_text("")
    (begun / "result.json").unlink()
    for done in (fedzo.table, fedzo.plot):
        with pytest.warns(FedzoWarning, match=r"nothing is recorded there yet: .*slow/seed-1"):
            done(place)
    with pytest.warns(FedzoWarning, match="nothing is recorded"):
        assert means(fedzo.table(place, at="queries=50"))["value at 50 queries"]["slow"] == 8.0
    with pytest.warns(FedzoWarning, match="nothing is recorded"):
        fedzo.table(place, target=4.0)


def test_errors_are_better_where_they_are_smaller() -> None:
    records = records_of([0.5, 0.25], metric="standard_error")
    runs = {"a": [replace(result_of([0.5, 0.25]), records=records)]}
    records = records_of([0.5, 0.125], metric="standard_error")
    runs["b"] = [replace(result_of([0.5, 0.125]), records=records)]
    assert "lower is better" in fedzo.table(runs, y="standard_error").to_markdown()

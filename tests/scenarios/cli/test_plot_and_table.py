"""The commands plot and table: what they write, and sentences for what they cannot."""

import json
from pathlib import Path
from typing import Any

import pytest
from stored_runs import records_of, write_methods, write_run
from typer.testing import CliRunner

from scenarios.cli import app


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    methods = {name: [[9.0, k + 0.1 * s + 1.0] for s in range(6)] for k, name in enumerate("ab")}
    return write_methods(tmp_path_factory.mktemp("runs"), methods)


def command(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_figure_is_drawn_as_wished(runs: Path, tmp_path: Path, suffix: str) -> None:
    style = tmp_path / "my.mplstyle"
    style.write_text("font.size: 7\n")
    wish = ["--logx", "--no-logy", "--xlim", "1,", "--ylim", "-1,10", "--size", "3.5,2.5"]
    out = tmp_path / f"a.{suffix}"
    done = command("plot", runs, *wish, "--style", style, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert out.stat().st_size > 1000
    assert done.stdout == f"figure: {out}\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("plot --ylim 3", "--ylim '3' is not LOW,HIGH"),
        ("plot --size 3", "--size '3' is not W,H; write inches"),
        ("plot --ylim 3,1", "ylim=3,1 must go up"),
        ("plot --xlim 0,1 --logx", "xlim=0,1 must be above 0, for logx"),
        ("plot --style ggplt", "did you mean ggplot?"),
        ("plot --ylim 90,100", "ylim shows nothing: value goes from"),
        ("plot --y gab", "unknown quantity gab; allowed: value"),
        ("plot --x querys", "x='querys' is unknown"),
        ("plot --out {}/a.foo", "a.foo has no suffix of a format; write a.pdf or a.png"),
        ("table --format html", "unknown --format html; allowed: csv, json, latex"),
        ("table --out {}/a.foo", "has no suffix of a format; write a.tex, or one of .txt"),
        ("table --at queries", "--at 'queries' is neither `end` nor AXIS=N,N"),
        ("table --baseline c", "unknown baseline c; allowed: a, b"),
        ("table --test t", "unknown test t"),
        ("table --x bytes", "x=bytes is what a target is counted in"),
    ],
)
def test_what_cannot_be_ends_in_a_sentence(
    runs: Path, tmp_path: Path, words: str, why: str
) -> None:
    name, *more = words.format(tmp_path).split()
    out = [] if "--out" in more else ["--out", tmp_path / "x.png" if name == "plot" else "x.tex"]
    done = command(name, runs, *more, *out)
    assert done.exit_code == 2, done.output
    assert why in " ".join(done.stderr.split())
    assert not [*tmp_path.iterdir()]


def test_a_table_is_printed_or_written_in_the_format_of_its_name(
    runs: Path, tmp_path: Path
) -> None:
    text = command("table", runs).stdout
    assert text.startswith("value at the end (lower is better)\nmethod  seeds")
    assert "b           6  2.25" in text
    for suffix, begin in {"tex": "% \\usepackage{booktabs}", "md": "**value at", "csv": "measure,",
                          "json": "{", "txt": "value at"}.items():  # fmt: skip
        out = tmp_path / f"a.{suffix}"
        done = command("table", runs, "--out", out)
        assert (done.exit_code, done.stdout) == (0, f"table: {out}\n")
        assert out.read_text().startswith(begin)
    assert "seeds are taken to be independent" in command("table", runs, "--format", "csv").stderr
    named = command("table", runs, "--format", "json", "--baseline", "b", "--at", "queries=50")
    told = json.loads(named.stdout)
    assert [row["reference"] for row in told["rows"]] == ["b", "b"]
    assert told["rows"][0]["p"] == 2.0**-5
    assert told["rows"][0]["significant"] is True


def test_levels_are_counted(runs: Path) -> None:
    done = command("table", runs, "--target", "1.25", "--target", "2", "--x", "rounds")
    assert "rounds until value is at most 1.25" in done.stdout
    assert "b does not get there with seeds 0, 1, 2, 3, 4, 5" in done.stdout
    assert "rounds until value is at most 2 " in done.stdout


def test_help_teaches_with_an_example() -> None:
    for name, example in {
        "plot": "fedzo plot runs/both --logx",
        "table": "fedzo table runs/both",
    }.items():
        assert example in " ".join(command(name, "--help").stdout.split())


COMPARE = ["compare", "quadratic", "--strategies", "seedzo", "--seeds", "0,1", "--rounds", "2",
           "--set", "scenario.dim=3"]  # fmt: skip


def test_compare_draws_as_plot_does(tmp_path: Path) -> None:
    out = tmp_path / "a.svg"
    done = command(*COMPARE, "--figure", out, "--size", "3,2", "--logx")
    assert done.exit_code == 0, done.stderr
    assert out.read_text().count("</svg>") == 1
    assert f"figure: {out}" in done.stdout.replace("\n", "")


def test_curves_that_cannot_be_drawn_so_do_not_cost_the_comparison(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command(*COMPARE, "--out", out, "--ylim", "500,600", "--json")
    assert done.exit_code == 2
    assert "no figure was drawn: ylim shows nothing" in " ".join(done.stderr.split())
    assert "the runs are kept: fedzo plot" in " ".join(done.stderr.split())
    assert json.loads(done.stdout)["figure"] is None
    assert json.loads((out / "compare.json").read_text())["paired"]["rows"]
    assert command("plot", out, "--out", tmp_path / "a.png").exit_code == 0


@pytest.mark.parametrize("words", [["plot", "--y", "value"], ["plot"], ["table"]])
def test_runs_of_several_scenarios_do_not_compare(words: list[str], tmp_path: Path) -> None:
    for scenario in ("quadratic", "multimodal"):
        write_run(tmp_path / scenario, records_of([2.0, 1.0]), scenario=scenario)
    done = command(*words, tmp_path)
    assert (done.exit_code, "are of several scenarios" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("command_of", ["plot", "table"])
def test_a_run_without_a_record_is_said(command_of: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", [], finished=False)
    done = command(command_of, tmp_path)
    assert (done.exit_code, "no record yet" in done.stderr) == (2, True), done.stderr


def test_seconds_on_a_fleet_are_said_to_need_one(runs: Path) -> None:
    done = command("plot", runs, "--x", "virtual_seconds")
    assert done.exit_code == 2
    assert "fedzo retime" in done.stderr


@pytest.mark.more
def test_one_seed_has_no_error(tmp_path: Path) -> None:
    run = ["compare", "quadratic", "--strategies", "fedzo", "--rounds", "1", "--seeds", "0"]
    done = command(*run, "--set", "scenario.dim=3", "--json", "--out", tmp_path / "one")
    told = json.loads(done.stdout)["strategies"]["fedzo"]
    assert set(told["standard_error"].values()) == {None}
    assert command("report", tmp_path / "one", "--out", tmp_path / "one.html").exit_code == 0
    assert "nan" not in command(*run, "--set", "scenario.dim=3").stdout

"""Clients by a column of a CSV file, and classes by the names that it has."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedzo.errors import ConfigError
from scenarios.data.partition import by_owner
from scenarios.problems.metric import MetricConfig, MetricScenario
from scenarios.problems.regression import RegressionConfig, RegressionScenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

WARDS = ("north", "south", "west")


def _table(folder: Path, rows: int = 120) -> str:
    """Write patients of three wards of different sizes; the ill have a higher temperature."""
    random = np.random.default_rng(0)
    lines = ["ward,ill,age,temperature"]
    for row in range(rows):
        ward, ill = WARDS[min(row % 6, 4) // 2], row % 2
        lines.append(
            f"{ward},{'yes' if ill else 'no'},{row % 80}.5,{random.normal(37 + 2 * ill):.2f}"
        )
    path = folder / "patients.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _metric(folder: Path, num_clients: int = 3, **settings: object) -> MetricScenario:
    told = {"target": "ill", "client_column": "ward", "hidden": "4", "max_iterations": 20}
    config = MetricConfig(data="csv", path=_table(folder), **{**told, **settings})  # type: ignore[arg-type]
    return MetricScenario(config, num_clients=num_clients, seed=0)


def test_every_ward_is_a_client_and_no_feature(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        scenario = _metric(tmp_path)
    assert scenario.problem(0).initial_x.shape == (2 * 4 + 4 + 4 * 2 + 2,)
    sizes = [len(client.labels) for client in scenario._objectives]
    assert sum(sizes) == 60
    assert len(set(sizes)) > 1
    assert "clients by ward: 0 north, 1 south, 2 west" in caplog.text
    assert "2 features" in caplog.text


def test_classes_are_reported_by_their_names(tmp_path: Path) -> None:
    problem = _metric(tmp_path).problem(0)
    metrics = problem.report(problem.initial_x, None).metrics
    assert {*metrics} == {"all_rows_f1", "f1_no", "f1_yes"}
    assert metrics["all_rows_f1"] == pytest.approx((metrics["f1_no"] + metrics["f1_yes"]) / 2)


def test_classes_that_are_numbers_are_not(tmp_path: Path) -> None:
    path = Path(_table(tmp_path))
    path.write_text(path.read_text().replace("yes", "1").replace("no,", "0,"))
    config = MetricConfig(
        data="csv", path=str(path), target="ill", client_column="ward", hidden="4"
    )
    problem = MetricScenario(config, num_clients=3, seed=0).problem(0)
    assert {*problem.report(problem.initial_x, None).metrics} == {"all_rows_f1"}


def test_regression_learns_what_each_ward_has(tmp_path: Path) -> None:
    path = _table(tmp_path)
    config = RegressionConfig(
        data="csv", path=path, target="temperature", client_column="ward", scaling="data"
    )
    scenario = RegressionScenario(config, num_clients=3, seed=0)
    train = scenario._train
    assert int(train.sizes.sum()) == 96
    assert train.sizes.tolist()[2] < train.sizes.tolist()[0]
    every = scenario.problem(0).report(scenario.problem(0).initial_x, None).value
    told = train.value(scenario.problem(0).initial_x.expand(3, 1, -1)).mean()
    assert every == pytest.approx(float(told))


def test_owners_get_their_own_rows() -> None:
    owners = np.asarray(["b", "a", "b", "c", "a"])
    parts = by_owner(owners, np.asarray([4, 3, 2, 0]), 3)
    assert [part.tolist() for part in parts] == [[0], [2, 3], [1]]


def _with(folder: Path, old: str, new: str) -> None:
    path = folder / "patients.csv"
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("settings", "clients", "said"),
    [
        ({}, 4, "names 3 clients and --clients is 4; set it to 3"),
        ({"client_column": "wards"}, 3, "is no column; did you mean 'ward'"),
        ({"client_column": "ill"}, 3, "is the column to predict; name another"),
        ({"target": "temprature"}, 3, "did you mean 'temperature'"),
        ({"target": ""}, 3, "differs in every row|must be numbers|names rows"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path, settings: dict[str, str], clients: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        _metric(tmp_path, clients, **settings)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\nnorth,", "\nNorth,", "two spellings of one name"),
        ("\nnorth,", "\n,", "the cell is empty; fill it"),
        ("\nnorth,", "\nalone,", "none of the rows of 'alone'|--clients is 3; set it to 4"),
    ],
)
def test_owners_are_as_strict_as_classes(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = _table(tmp_path)
    _with(tmp_path, old, new)
    config = MetricConfig(data="csv", path=path, target="ill", client_column="ward", hidden="4")
    with pytest.raises(ConfigError, match=said):
        MetricScenario(config, num_clients=3, seed=0)


def test_a_client_without_rows_is_named() -> None:
    with pytest.raises(ConfigError, match="none of the rows of 'b'"):
        by_owner(np.asarray(["a", "b"]), np.asarray([0]), 2)


def test_a_table_needs_something_to_predict_by(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("who,y\na,1\nb,2\n")
    config = RegressionConfig(
        data="csv", path=str(tmp_path / "t.csv"), client_column="who", scaling="data"
    )
    with pytest.raises(ConfigError, match="no column to predict by; add one"):
        RegressionScenario(config, num_clients=2, seed=0)


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (MetricConfig, {"classes_per_client": 1}),
        (RegressionConfig, {"partition": "quantity_skew"}),
        (RegressionConfig, {"min_size": 2}),
    ],
)
def test_rows_are_split_in_one_way(config: type, setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="has no effect with client_column=ward"):
        config(data="csv", path="t.csv", client_column="ward", **setting)


def test_a_column_of_clients_needs_a_file() -> None:
    with pytest.raises(ConfigError, match="client_column=ward has no effect with data=digits"):
        MetricConfig(client_column="ward")


def test_names_with_spaces_around_are_those_columns(tmp_path: Path) -> None:
    plain, spaced = _metric(tmp_path), _metric(tmp_path, target=" ill ", client_column="ward ")
    starts = [each.problem(0).initial_x for each in (plain, spaced)]
    assert torch.equal(*starts)


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = Path(_table(tmp_path))
    config = MetricConfig(
        data="csv", path=str(path), target="ill", client_column="ward", hidden="4", max_iterations=9
    )
    before, after = "f1_yes", "f1_maybe"
    for name in (before, after):
        problem = MetricScenario(config, num_clients=3, seed=0).problem(0)
        assert name in problem.report(problem.initial_x, None).metrics
        path.write_text(path.read_text().replace("yes", "maybe"))


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    settings = {
        "scenario.data": "csv",
        "scenario.path": _table(tmp_path),
        "scenario.target": "ill",
        "scenario.client_column": "ward",
        "scenario.hidden": "4",
        "scenario.max_iterations": 20,
        "client.num_directions": 2,
        "strategy.local_steps": 1,
    }
    made = make_experiment("metric", "fedzo", num_rounds=1, num_clients=3, settings=settings)
    out = tmp_path / "run"
    whole = simulate(made, out=out)
    assert simulate(made, out=out, resume=True).final_value == whole.final_value
    history, path = (out / "history.jsonl").read_bytes(), Path(_table(tmp_path))
    assert simulate(made, out=out, resume=True).final_value == whole.final_value
    path.write_text(
        path.read_text().replace("yes", "was").replace("no", "yes").replace("was", "no")
    )
    with pytest.raises(ConfigError, match=r"patients\.csv has changed since the run in .* began"):
        simulate(replace(made, num_rounds=3), out=out, resume=True)
    assert (out / "history.jsonl").read_bytes() == history

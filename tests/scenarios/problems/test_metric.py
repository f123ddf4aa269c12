"""The metric scenario: scores against scikit-learn, tables, and what is asked."""

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.data.tables import load_table
from scenarios.problems.metric import MetricConfig, MetricScenario, macro_scores
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

REFERENCE = {
    "f1": metrics.f1_score,
    "precision": metrics.precision_score,
    "recall": metrics.recall_score,
    "jaccard": metrics.jaccard_score,
}
SMALL = {"scenario.hidden": "6", "scenario.max_rows": 40, "scenario.max_iterations": 60}


@given(st.sampled_from(sorted(REFERENCE)), st.integers(2, 6), st.integers(0, 10_000))
def test_scores_are_those_of_scikit_learn(metric: str, classes: int, seed: int) -> None:
    generator = stream(seed, "test")
    true = generator.integers(0, classes, 12)
    said = generator.integers(0, classes, (3, 12))
    ours = macro_scores(torch.from_numpy(said), torch.from_numpy(true), classes, metric)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [REFERENCE[metric](true, row, average="macro", zero_division=0) for row in said]
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12)


def test_the_start_is_the_trained_network_and_f_the_mean_of_clients() -> None:
    config = MetricConfig(hidden="6", max_rows=40, max_iterations=60)
    world = MetricScenario(config, num_clients=5, seed=0)
    problem = world.problem(0)
    values = world.cohort(range(5), 0).value(problem.initial_x.expand(5, 1, -1))
    report = problem.report(problem.initial_x, None)
    assert report.value == pytest.approx(float(values.mean()))
    assert report.metrics["all_rows_f1"] > 0.7
    assert problem.initial_x.numel() == 64 * 6 + 6 + 6 * 10 + 10


def test_clients_have_few_classes() -> None:
    config = MetricConfig(hidden="6", max_rows=40, max_iterations=60, classes_per_client=2)
    world = MetricScenario(config, num_clients=7, seed=3)
    cohort = world.cohort(range(7), 0)
    assert {len(o.labels.unique()) for o in cohort.objectives} == {2}  # type: ignore[attr-defined]


@pytest.mark.more
def test_fzoos_improves_the_metric() -> None:
    experiment = make_experiment("metric", "fzoos", num_rounds=15, settings=SMALL)
    result = simulate(experiment)
    assert result.best_value < result.initial_value - 0.02  # type: ignore[operator]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("header", ["", "a,b,kind\n"])
def test_a_csv_file_with_or_without_header(tmp_path: Path, header: str, packed: bool) -> None:
    text = header + "1,2.5,cat\n3,4,dog\n5,6,cat\n"
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    table = load_table("csv", str(path))
    np.testing.assert_array_equal(table.features, [[1, 2.5], [3, 4], [5, 6]])
    assert table.labels.tolist() == [0, 1, 0]
    assert table.names == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,a\n3,b\n", r"line 2: 2 cells, and 3 in the first line"),
        ("", r"is empty"),
        ("1,2,a\n3,x,b\n", r"say which with scenario\.header=yes or scenario\.header=no"),
        ("1,2,a\n3,4,a\n", r"has 1 class"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_table("csv", str(path))


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read"):
        load_table("csv", str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match=r"needs scenario\.path"):
        load_table("csv", "")
    with pytest.raises(ConfigError, match=r"not in scikit-learn's data home"):
        load_table("covertype", str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"hidden": "3,x"}, r"units such as 30,14"), ({"radius": 0.0}, r"radius=0\.0 must be")],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MetricConfig(**settings)  # type: ignore[arg-type]


def test_shuttle_is_read() -> None:
    path = Path(__file__).parents[4] / "shared" / "data" / "shuttle.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    table = load_table("csv", str(path))
    assert table.features.shape == (58000, 9)
    assert sorted(np.bincount(table.labels))[-1] == 45586

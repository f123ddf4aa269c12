"""The scenario regression: its data and scales, its losses, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedzo.errors import ConfigError
from scenarios.data.columns import CALIFORNIA, load_columns, read_scales, scaled
from scenarios.problems.regression import RegressionConfig, RegressionScenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

CSV = "age,city,price\n" + "".join(
    f"{20 + i},{'Ulm' if i % 3 else 'Bonn'},{100 + 7 * i}\n" for i in range(40)
)
SCALES = """
target_scale = 400.0
[columns.age]
center = 40.0
scale = 10.0
[columns.city]
values = ["Bonn", "Ulm"]
"""


def files(tmp_path: Path, csv: str = CSV, scales: str = SCALES) -> dict[str, Any]:
    (tmp_path / "t.csv").write_text(csv)
    (tmp_path / "s.toml").write_text(scales)
    return {"data": "csv", "path": str(tmp_path / "t.csv"), "scales": str(tmp_path / "s.toml")}


def test_a_table_is_scaled_by_what_the_file_says(tmp_path: Path) -> None:
    given = files(tmp_path)
    columns, _ = load_columns("csv", given["path"], "", seed=0)
    assert columns.target == "price"
    numbers = scaled(columns, np.arange(30), read_scales(given["scales"]), "public", 0.8)
    assert numbers.features.shape == (40, 3)
    assert numbers.features[0].tolist() == pytest.approx([-0.8, 0.8, -0.8]), "clipped"
    assert numbers.features[15, 0] == pytest.approx(-0.5)
    free = scaled(columns, np.arange(30), read_scales(given["scales"]), "public", 0.0)
    assert free.features[0].tolist() == pytest.approx([-2.0, 1.0, -1.0])
    assert free.targets[1] == pytest.approx(107 / 400)


def test_scaling_by_the_data_is_a_choice_that_is_said_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = files(tmp_path)
    columns, _ = load_columns("csv", given["path"], "", seed=0)
    with caplog.at_level("WARNING"):
        numbers = scaled(columns, np.arange(30), {}, "data", 0.0)
    assert "which no epsilon covers" in caplog.text
    assert numbers.features[:30, 0].mean() == pytest.approx(0, abs=1e-6)
    assert numbers.features[:30, 0].std() == pytest.approx(1, abs=1e-6)
    assert np.abs(numbers.targets[:30]).max() == 1
    caplog.clear()
    scaled(columns, np.arange(30), read_scales(given["scales"]), "public", 0.0)
    assert not caplog.text


@pytest.mark.parametrize(
    ("csv", "scales", "match"),
    [
        (CSV, "target_scale = 1.0\n[columns.age]\ncenter = 1.0\nscale = 1.0\n", "column 'city'"),
        (CSV, SCALES.replace("scale = 10.0", "scale = 0.0"), "center and a positive scale"),
        (CSV, SCALES.replace("400.0", "-1"), "needs a positive target_scale"),
        (CSV, SCALES.replace("center = 40.0", "center = nan"), "a finite center"),
        (CSV, SCALES.replace('"Ulm"', '"ulm"'), r"holds 'Ulm', which .* does not name"),
        (CSV, SCALES.replace("columns.age", "columns.Age"), "did you mean age"),
        (CSV, "a = [", "cannot be read"),
        ("1,2\n3,4\n", SCALES, "say which with scenario.header"),
        ("a,b\n1,x\n2,y\n", SCALES, "must hold finite numbers"),
        ("a,b\n1,2\n3\n", SCALES, "same number of columns"),
        ("a,b\n", SCALES, "holds a header and no rows"),
    ],
)
def test_tables_and_scales_that_are_none_are_refused(
    tmp_path: Path, csv: str, scales: str, match: str
) -> None:
    config = RegressionConfig(**files(tmp_path, csv, scales), min_size=1)
    with pytest.raises(ConfigError, match=match):
        RegressionScenario(config, num_clients=2, seed=0)


def test_missing_things_have_remedies(tmp_path: Path) -> None:
    for config, match in (
        (RegressionConfig(data="csv"), r"needs scenario\.path"),
        (RegressionConfig(data="csv", path=str(tmp_path / "no.csv")), "cannot be read"),
        (RegressionConfig(data="california", path=str(tmp_path)), "fetch_california_housing"),
        (
            RegressionConfig(**{**files(tmp_path), "target": "prize"}),
            "is no column; did you mean 'price'",
        ),
        (RegressionConfig(**{**files(tmp_path), "scales": ""}), "has no public scale"),
    ):
        with pytest.raises(ConfigError, match=match):
            RegressionScenario(config, num_clients=2, seed=0)


def test_california_is_read_from_scikit_learns_data_home(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    random = np.random.default_rng(0)
    rows = np.abs(random.standard_normal((60, 9))) + 1
    joblib.dump(rows, tmp_path / "cal_housing_py3.pkz", compress=6)
    columns, known = load_columns("california", str(tmp_path), "", seed=0)
    assert (
        set(known["columns"]) == set(CALIFORNIA["columns"]) == set(columns.values) - {"MedHouseVal"}
    )
    config = RegressionConfig(data="california", path=str(tmp_path), min_size=1)
    scenario = RegressionScenario(config, num_clients=3, seed=0)
    assert scenario.cohort(range(3), 0).dim == 101


def test_what_is_judged_is_what_autograd_says() -> None:
    scenario = RegressionScenario(RegressionConfig(), num_clients=4, seed=1)
    problem = scenario.problem(0)
    report = problem.report(problem.initial_x, None)
    x = problem.initial_x.clone().requires_grad_(True)
    value = scenario.cohort(range(4), 0).value(x.expand(4, 1, -1)).mean()
    (gradient,) = torch.autograd.grad(value, x)
    assert report.value == pytest.approx(float(value.detach()), rel=1e-6)
    assert report.metrics["gradient_norm_sq"] == pytest.approx(
        float(gradient.square().sum()), rel=1e-4
    )
    assert scenario.cohort(range(4), 0).sizes.tolist() == [800] * 4  # type: ignore[attr-defined]


def test_clients_may_have_unequally_many_records() -> None:
    config = RegressionConfig(partition="quantity_skew", alpha=0.5, max_records=500)
    scenario = RegressionScenario(config, num_clients=5, seed=1)
    sizes = scenario.cohort(range(5), 0).sizes.tolist()  # type: ignore[attr-defined]
    assert len(set(sizes)) > 1
    assert sum(sizes) == 400
    made = make_experiment(
        "regression",
        "diff2",
        num_rounds=3,
        num_clients=5,
        settings={"scenario.partition": "quantity_skew", "scenario.max_records": 500},
    )
    assert simulate(made).summary()["epsilon"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("engine", "strategy"),
    [
        ("strict", "diff2"),
        ("strict", "diff2_zo"),
        pytest.param("ray", "diff2", marks=[pytest.mark.xdist_group("ray"), pytest.mark.slow]),
    ],
)
def test_private_runs_give_the_same_bits_on_every_engine(engine: str, strategy: str) -> None:
    more: dict[str, Any] = {"engine.strict": True} if engine == "strict" else {}
    name = "inprocess" if engine == "strict" else "ray"
    shared = {"scenario.max_records": 300, "strategy.report_shortened": True}
    runs = [
        simulate(
            make_experiment(
                "regression", strategy, engine=e, num_rounds=3, num_clients=4,
                settings={**shared, **m},
            )
        )
        for e, m in (("inprocess", {}), (name, more))
    ]  # fmt: skip
    assert torch.allclose(runs[0].x, runs[1].x, rtol=1e-5, atol=1e-7)
    if engine == "strict":
        assert torch.equal(runs[0].x, runs[1].x)


def test_the_history_tells_epsilon_noise_and_the_share_that_was_clipped(tmp_path: Path) -> None:
    made = make_experiment("regression", "diff2", num_rounds=4)
    result = simulate(made, out=tmp_path)
    rounds = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert rounds[0]["epsilon"] == 0
    assert [r["epsilon"] for r in rounds] == sorted(r["epsilon"] for r in rounds)
    assert all(r["noise_std"] > 0 and 0 <= r["shortened"] <= 1 for r in rounds[1:])
    assert result.summary()["epsilon"] == rounds[-1]["epsilon"]


@pytest.mark.parametrize("strategy", ["fedavg", "fedzo"])
def test_a_client_has_the_same_bits_in_any_company(strategy: str) -> None:
    """Processors exist whose products of stacked matrices look at the company (AMD's, by MKL)."""

    def found(chunk: int) -> torch.Tensor:
        settings: dict[str, Any] = {"engine.chunk_size": chunk}
        made: dict[str, Any] = {"num_rounds": 2, "num_clients": 5, "settings": settings}
        return simulate(make_experiment("regression", strategy, **made)).x

    together = found(0)
    assert torch.equal(together, found(1))
    assert torch.equal(together, found(2))

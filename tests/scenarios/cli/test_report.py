"""`fedzo report`: a page with exact numbers that a browser shows without message or request."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fedzo
from fedzo.records import page as page_module
from fedzo.records.curves import mean_curve, run_curve
from scenarios.cli import app
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from scenarios.runs.stored import by_label, load_runs

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NO_BROWSER = "needs chromium and its chromedriver (Debian: apt-get install chromium-driver)"
pytestmark = pytest.mark.xdist_group("browser")
"""Runs, page and browser are made once, for all tests of one process."""


def command(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "runs & <b>bold</b>"
    usual = {"scenario.dim": 3, "faults.drop": 0.2, "strategy.local_steps": 2}
    private = {**usual, "strategy.unit": "client"}
    methods = {"fedzo": ("fedzo", usual), "fedavg": ("fedavg", usual)}
    for label, (name, settings) in {**methods, "private": ("dp_fedzo", private)}.items():
        for seed in (0, 1):
            made = make_experiment(
                "quadratic", name, num_rounds=3, num_clients=3, seed=seed, settings=settings
            )
            simulate(made, out=out / label / f"seed-{seed}")
    return out


@pytest.fixture(scope="module")
def page(runs: Path) -> Path:
    path = runs.parent / "report.html"
    done = command("report", runs, "--out", path)
    assert done.exit_code == 0, done.output
    return path


def data_of(page: Path) -> Any:
    found = re.search(r'id="fedzo-data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.mark.more
def test_the_page_has_the_numbers_of_the_histories(runs: Path, page: Path) -> None:
    data = data_of(page)
    told = {method["label"]: method["runs"] for method in data["methods"]}
    found = by_label(load_runs(runs))
    assert list(told) == list(found)
    for label, several in found.items():
        for one, shown in zip(several, told[label], strict=True):
            [problem] = shown["problems"]
            judged = [record for record in one.records if record.value is not None]
            assert shown["seed"] == one.experiment.seed
            assert problem["value"] == [record.value for record in judged]
            assert problem["gap"] == [record.metrics["gap"] for record in judged]
            for axis in data["axes"]:
                places = [record.axis(axis) for record in judged]
                known = [None if np.isnan(place) else place for place in places]
                assert problem[axis] == known
    failed = [r for one in load_runs(runs) for record in one.records for r in record.failures]
    assert len(data["failures"]) == len(failed) > 0


def test_the_page_says_what_was_run_and_escapes_what_was_named(page: Path, runs: Path) -> None:
    text = page.read_text()
    body = text[: text.index('<script type="application/json"')]
    for said in ("strategy.noise_multiplier", "Wilcoxon", "0.25 for three seeds", "epsilon spent",
                 "no answer", "python", "std / sensitivity"):  # fmt: skip
        assert said in body, said
    assert "<b>bold" not in text
    assert page.stat().st_size < 2_000_000


def test_every_table_has_as_many_cells_in_a_row_as_heads(page: Path) -> None:
    text = page.read_text()
    tables = re.findall(r"<table.*?</table>", text, re.DOTALL)
    assert any("holm" in one for one in tables)
    for one in tables:
        head, *rows = re.findall(r"<tr.*?</tr>", one, re.DOTALL)
        widths = {len(re.findall(r"<t[dh]", row)) for row in rows}
        assert widths <= {head.count("<th")}, head


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (BROWSER and DRIVER):
        pytest.skip(NO_BROWSER)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=str(DRIVER))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def requests(browser: Any) -> list[str]:
    """Return the addresses outside the page that were asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    urls = [params["request"]["url"] for params in asked]
    return [url for url in urls if not url.startswith("data:")]


def choose(browser: Any, **values: str) -> list[dict[str, Any]]:
    """Click through the selectors and return the rows that the chart draws then."""
    from selenium.webdriver.support.ui import Select, WebDriverWait

    for name, value in values.items():
        element = browser.find_element("id", f"fedzo-{name.replace('_', '-')}")
        Select(element).select_by_value(value)
    now = [f"{values['axis']} {values['quantity']} {values['show']}"]
    now += [str(values[name] == "log").lower() for name in ("scale_x", "scale_y")]
    shown = "return document.body.dataset.drawn"
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(shown) == " ".join(now))
    rows: list[dict[str, Any]] = browser.execute_script("return fedzoView.data('curves')")
    return rows


@pytest.mark.more
def test_a_browser_shows_the_curves_of_the_histories_on_every_axis(
    browser: Any, runs: Path, page: Path
) -> None:
    browser.get(page.as_uri())
    usual = {"quantity": "gap", "scale_x": "linear", "scale_y": "linear"}
    found = by_label(load_runs(runs))
    for axis in ("queries", "rounds", "bytes", "floats", "seconds"):
        drawn = choose(browser, axis=axis, show="seeds", **usual)
        for label, several in found.items():
            for one in several:
                mine = [
                    r for r in drawn if (r["method"], r["seed"]) == (label, one.experiment.seed)
                ]
                curve = run_curve(one.records, "gap", axis)
                assert [row["x"] for row in mine] == curve.positions.tolist()
                assert [row["y"] for row in mine] == curve.values.tolist()
        drawn = choose(browser, axis=axis, show="mean", **usual)
        for label, several in found.items():
            mine = [row for row in drawn if row["method"] == label]
            curve, error = mean_curve([run_curve(one.records, "gap", axis) for one in several])
            assert [row["x"] for row in mine] == curve.positions.tolist()
            np.testing.assert_allclose([row["y"] for row in mine], curve.values, rtol=1e-12)
            np.testing.assert_allclose([r["high"] - r["y"] for r in mine], error, atol=1e-12)
    drawn = choose(browser, axis="queries", show="mean", **{**usual, "scale_x": "log"})
    assert min(row["x"] for row in drawn) > 0
    choose(browser, axis="queries", show="mean", **{**usual, "scale_y": "log"})
    assert browser.find_elements("css selector", "#fedzo-curves svg")
    assert browser.find_elements("css selector", "#fedzo-failures svg")
    assert requests(browser) == [page.as_uri()]
    assert browser.get_log("browser") == []


def test_a_grid_and_the_images_of_attacks_are_shown(browser: Any, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from fedzo.records.plots import save_figure

    cell = {"mean": 0.5, "standard_error": 0.1}
    rows = {"mean": {"attacks": {"none": cell, "sign_flip": {**cell, "mean": None}}, "worst": 0.5}}
    grid = {"title": "</script><b>t</b>", "measure": "test_accuracy", "panels": {"": rows}}
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    (tmp_path / "report.json").write_text(json.dumps({"attacker": "<i>x</i>", "success": 0.5}))
    save_figure(Figure(figsize=(1, 1)), tmp_path / "figure.png")
    out = tmp_path / "page.html"
    assert command("report", tmp_path, "--out", out).exit_code == 0
    browser.get(out.as_uri())
    script = "return document.querySelectorAll('#fedzo-grid-0 svg').length"
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30).until(lambda b: b.execute_script(script) == 1)
    assert "data:image/png" in out.read_text()
    assert "<i>x" not in out.read_text()
    assert requests(browser) == [out.as_uri()]
    assert browser.get_log("browser") == []


@pytest.mark.parametrize(
    ("words", "why"),
    [(["{}/nowhere"], "is no directory"), (["{}"], "holds none of history.jsonl"),
     (["{}", "--out", "{}/x.png"], "write x.html")],
)  # fmt: skip
def test_what_is_no_run_ends_in_a_sentence(words: list[str], why: str, tmp_path: Path) -> None:
    done = command("report", *(word.format(tmp_path) for word in words))
    assert done.exit_code == 2
    assert why in done.stderr.replace("\n", "")
    assert not list(tmp_path.iterdir())


def test_one_empty_directory_of_several_is_named(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = command("report", runs, tmp_path / "empty", "--out", tmp_path / "x.html")
    assert (
        done.exit_code,
        "empty holds none of history.jsonl" in done.stderr.replace("\n", ""),
    ) == (
        2,
        True,
    )
    assert not (tmp_path / "x.html").exists()


def test_runs_of_two_scenarios_are_not_compared(tmp_path: Path) -> None:
    for name in ("quadratic", "multimodal"):
        run = ["run", name, "--strategy", "fedzo", "--rounds", "1", "--set", "scenario.dim=3"]
        assert command(*run, "--out", tmp_path / name).exit_code == 0
    done = command("report", tmp_path, "--out", tmp_path / "x.html")
    assert done.exit_code == 2
    assert "several scenarios" in done.stderr


def test_a_long_history_is_thinned_and_that_is_said(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scenarios.runs.report_data.MOST_NUMBERS", 10)
    path = tmp_path / "short.html"
    assert command("report", runs, "--out", path).exit_code == 0
    [first, *_] = data_of(path)["methods"]
    values = first["runs"][0]["problems"][0]["value"]
    records = fedzo.load_run(runs / first["label"] / "seed-0").records
    assert values == [records[0].value, records[-1].value]
    assert "judged record of each run is drawn" in path.read_text()


def test_without_the_charts_there_is_a_sentence(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    page_module._library.cache_clear()
    done = command("report", runs, "--out", tmp_path / "x.html")
    assert done.exit_code == 2
    assert "pip install 'fedzo[report]'" in done.stderr.replace("\n", " ")

"""Runs in TensorBoard, MLflow and W&B: numbers of the history, sentences where they lack."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fedzo.errors import ConfigError
from scenarios.cli import app
from scenarios.runs.experiment import make_experiment
from scenarios.runs.loggers import LOGGERS, logged, numbers_of
from scenarios.runs.simulate import RunResult, simulate

MADE = make_experiment("quadratic", "fedzo", num_rounds=3, settings={"scenario.dim": 3})


def run(text: str, **more: Any) -> RunResult:
    with logged([text], MADE) as callbacks:
        return simulate(MADE, callbacks=callbacks, **more)


def of_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    names = found.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in names}


def of_mlflow(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    home = client.get_experiment_by_name("quadratic")
    [found] = client.search_runs([home.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["client.mu"] == str(MADE.settings["client.mu"])
    names = found.data.metrics
    history = {name: client.get_metric_history(found.info.run_id, name) for name in names}
    return {name: [(m.step, m.value) for m in told] for name, told in history.items()}


READ: dict[str, Callable[[Path], dict[str, list[tuple[int, float]]]]] = {
    "tensorboard": of_tensorboard,
    "mlflow": of_mlflow,
}


def need(kind: str) -> None:
    pytest.importorskip(LOGGERS[kind][1], reason=f"needs pip install 'fedzo[{kind}]'")


SLOW = {"mlflow": pytest.mark.slow, "wandb": pytest.mark.slow}  # ten seconds of imports and tables


def each(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=SLOW.get(name, ())) for name in names]


@pytest.mark.parametrize("kind", each(READ))
def test_a_logger_has_the_numbers_of_the_history(kind: str, tmp_path: Path) -> None:
    need(kind)
    result = run(f"{kind}:{tmp_path}")
    found = READ[kind](tmp_path)
    expected: dict[str, list[tuple[int, float]]] = {}
    for record in result.records:
        for name, value in numbers_of(record).items():
            expected.setdefault(name, []).append((record.round_index, value))
    assert found.keys() == expected.keys() >= {"value", "queries", "metrics/gap"}
    for name, told in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in told]
        values = [value for _, value in told]
        np.testing.assert_allclose([v for _, v in found[name]], values, rtol=1e-6)


CODE = """
import random, sys
import numpy as np, torch
from scenarios.runs.experiment import make_experiment
from scenarios.runs.loggers import LOGGERS, logged
from scenarios.runs.simulate import simulate
def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
made = make_experiment("quadratic", "fedzo", num_rounds=2, settings={"scenario.dim": 3})
plain = simulate(made)
kind, folder = sys.argv[1:]
__import__(LOGGERS[kind][1])
before = states()
with logged([f"{kind}:{folder}"], made) as callbacks:
    result = simulate(made, callbacks=callbacks)
assert states() == before
assert torch.equal(result.x, plain.x)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOGGERS)
def test_logging_leaves_global_random_states_and_results_alone(kind: str, tmp_path: Path) -> None:
    """In a process of its own: the checks of types that tests run with draw random numbers."""
    need(kind)
    words = [sys.executable, "-c", CODE, kind, str(tmp_path / "log")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert any((tmp_path / "log").iterdir())


def test_what_a_killed_run_logged_beyond_its_checkpoint_is_dropped(tmp_path: Path) -> None:
    need("tensorboard")

    def die(snapshot: Any) -> None:
        if snapshot.record.round_index == 2:
            raise KeyboardInterrupt

    folder, out = tmp_path / "tb", tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), logged([f"tensorboard:{folder}"], MADE) as callbacks:
        simulate(MADE, out=out, callbacks=[*callbacks, die])
    run(f"tensorboard:{folder}", out=out, resume=True)
    assert [step for step, _ in of_tensorboard(folder)["value"]] == [0, 1, 2, 3]


def test_numbers_of_later_problems_have_names_of_their_own() -> None:
    from fedzo.records.history import RoundRecord

    record = RoundRecord(problem=2, round_index=1, value=None, metrics={"gap": 0.5})
    found = numbers_of(record)
    assert found["problem-2/metrics/gap"] == 0.5
    assert "problem-2/value" not in found


@pytest.mark.parametrize("text", ["tensorboard", "tensorboard:", "excel:dir", ":x"])
def test_a_logger_that_is_none_is_refused_before_anything_runs(text: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["run", "quadratic", "--strategy", "fedzo", "--out", str(out), "--log", text]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "is not KIND:DIR" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("kind", LOGGERS)
def test_what_is_not_installed_is_named_with_its_extra(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, LOGGERS[kind][1], None)
    remedy = rf"pip install 'fedzo\[{kind}\]'"
    with pytest.raises(ConfigError, match=remedy), logged([f"{kind}:{tmp_path / 'x'}"], MADE):
        pass
    assert not (tmp_path / "x").exists()

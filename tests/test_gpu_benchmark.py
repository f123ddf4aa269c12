"""The checks that need a GPU run without one, as a rehearsal, and say what they did not do."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from scenarios.runs import engines

FILE = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(engines, "on_device", engines.on_device)  # what it replaces comes back
    spec = importlib.util.spec_from_file_location("gpu_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_was_not_run(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--only", "bits", "ray"])
    benchmark.main()
    assert capsys.readouterr().out == (
        "this process sees no GPU, so nothing was run of: bits, ray\n"
    )


def test_a_rehearsal_checks_the_same(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "STRATEGIES", ("fedavg",))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--only", "bits", "crossings"])
    benchmark.main()
    told = capsys.readouterr().out
    assert "| gaussian: numbers of 1,048,576 that differ | 0 |" in told
    assert "| fedavg: floats to the CPU / up | 0 / 40,960 |" in told


def test_what_comes_back_beyond_the_answers_is_missed(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "STRATEGIES", ("seedzo",))
    monkeypatch.setattr(benchmark.Crossings, "__torch_dispatch__", _counting_all)
    [row] = benchmark.crossings(torch.device("cpu"))
    assert row.missed


def _counting_all(
    mode: object, func: object, types: object, args: object, kwargs: object
) -> object:
    mode.down += 4096  # type: ignore[attr-defined]
    return func(*args, **(kwargs or {}))  # type: ignore[operator, misc, dict-item]

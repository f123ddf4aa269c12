"""Runs draw nothing in these tests but where it is looked at: a figure takes longer than a run."""

import importlib
from collections.abc import Iterator

import pytest

simulating = importlib.import_module("scenarios.runs.simulate")
draw = simulating._draw


@pytest.fixture(autouse=True, scope="module")
def _no_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulating, "_draw", lambda *given: None)
        yield


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runs of a test draw."""
    monkeypatch.setattr(simulating, "_draw", draw)

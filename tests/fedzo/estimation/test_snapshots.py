"""Snapshots of modules moved in place: the same bits after a restart, from fewer draws."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedzo import keep_snapshots
from fedzo.errors import ConfigError, FedzoWarning
from fedzo.estimation import replay as replaying
from fedzo.estimation.replay import Replay
from fedzo.objectives.objective import flatten_parameters
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from tests.strategies.shared.test_seed_scalar import net

M, EVERY, STEPS = 2, 5, 13
PLAIN = Replay(seed=3, num_directions=M)
COEFFICIENTS = 0.01 * torch.randn(STEPS, M, generator=torch.Generator().manual_seed(1))
LOG = COEFFICIENTS.reshape(-1)
NUMBERED = torch.cat([torch.arange(STEPS).flip(0).unsqueeze(1).float(), COEFFICIENTS], dim=1)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the steps that are drawn and added."""
    taken: list[int] = []
    real = replaying.add_terms_
    monkeypatch.setattr(
        replaying, "add_terms_", lambda place, terms: (taken.append(1), real(place, terms))
    )
    return taken


def brought(log: Tensor, folder: Path | None = None, replay: Replay = PLAIN) -> Tensor:
    """Return the parameters of a fresh module that is moved along a log."""
    module = net()
    if folder:
        keep_snapshots(module, folder, EVERY)
    replay.bring_(module, log)
    return flatten_parameters(module)


@pytest.mark.parametrize("log", [LOG, NUMBERED], ids=["log", "numbered"])
def test_a_fresh_module_replays_what_came_after_the_snapshot(
    log: Tensor, steps: list[int], tmp_path: Path
) -> None:
    whole = brought(log)
    assert torch.equal(brought(log, tmp_path), whole)
    assert len(list(tmp_path.iterdir())) == 1
    steps.clear()
    assert torch.equal(brought(log, tmp_path), whole)
    assert len(steps) == STEPS - STEPS // EVERY * EVERY


def test_a_snapshot_is_replaced_by_the_next(steps: list[int], tmp_path: Path) -> None:
    module = net()
    keep_snapshots(module, tmp_path, EVERY)
    for end in range(M, len(LOG) + 1, M):
        PLAIN.bring_(module, LOG[:end])
    assert len(list(tmp_path.iterdir())) == 1
    steps.clear()
    assert torch.equal(brought(LOG, tmp_path), flatten_parameters(module))
    assert len(steps) == 3


@pytest.mark.parametrize(
    ("log", "replay"),
    [
        (LOG[: 4 * M], PLAIN),
        (torch.cat([LOG[:M] + 1, LOG[M:]]), PLAIN),
        (LOG, Replay(seed=4, num_directions=M)),
        (LOG, Replay(seed=3, problem=1, num_directions=M)),
    ],
    ids=["earlier", "another log", "another seed", "another problem"],
)
def test_a_snapshot_that_is_not_on_the_way_is_left(
    log: Tensor, replay: Replay, steps: list[int], tmp_path: Path
) -> None:
    brought(LOG, tmp_path)
    whole = brought(log, replay=replay)
    steps.clear()
    assert torch.equal(brought(log, tmp_path, replay), whole)
    assert len(steps) == len(log) // M


def test_a_snapshot_of_another_start_is_left(tmp_path: Path) -> None:
    brought(LOG, tmp_path)
    other = net()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    keep_snapshots(other, tmp_path, EVERY)
    before = flatten_parameters(other)
    PLAIN.bring_(other, LOG)
    torch.testing.assert_close(
        flatten_parameters(other) - before, brought(LOG) - flatten_parameters(net())
    )


def test_a_damaged_snapshot_is_told_of_and_made_anew(steps: list[int], tmp_path: Path) -> None:
    whole = brought(LOG, tmp_path)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.warns(FedzoWarning, match="the whole log is replayed instead"):
        assert torch.equal(brought(LOG, tmp_path), whole)
    steps.clear()
    assert torch.equal(brought(LOG, tmp_path), whole)
    assert len(steps) == 3


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(FedzoWarning, match="no snapshot is written"):
        assert torch.equal(brought(LOG, tmp_path / "file" / "below"), brought(LOG))


def test_a_module_that_nobody_has_moved_belongs_to_no_run(tmp_path: Path) -> None:
    module = net()
    keep_snapshots(module, tmp_path, EVERY)
    PLAIN.bring_(module, LOG[:0])
    Replay(seed=9, num_directions=M).bring_(module, LOG)


def test_less_than_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every=0 must be a number of steps"):
        keep_snapshots(net(), tmp_path, 0)


@pytest.mark.more
def test_a_run_goes_on_from_snapshots_to_the_same_bits(steps: list[int], tmp_path: Path) -> None:
    def run(rounds: int, **more: Any) -> Tensor:
        told = {"scenario.snapshots": str(more.pop("snapshots"))} if "snapshots" in more else {}
        settings = {"scenario.task": "digits_cnn", "scenario.examples": 100, **told}
        experiment = make_experiment(
            scenario="finetune",
            strategy="seed_scalar",
            num_clients=2,
            num_rounds=rounds,
            settings=settings | ({"scenario.snapshot_every": EVERY} if told else {}),
        )
        return simulate(experiment, **more).solutions[0]

    whole = run(STEPS)
    places = {"out": tmp_path / "run", "snapshots": tmp_path / "snapshots"}
    run(STEPS - 1, **places)
    steps.clear()
    assert torch.equal(run(STEPS, resume=True, **places), whole)
    assert len(steps) == STEPS - (STEPS - 1) // EVERY * EVERY

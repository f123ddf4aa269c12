"""A flipped bit anywhere in a run's directory: the run goes on to the same bits, or is refused."""

import importlib
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import scenarios.runs.rundir
from fedzo.errors import FedzoError, FedzoWarning
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.simulate import RunResult, simulate

KILLED_AFTER = 2


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios.runs.rundir, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr("fedzo.records.checkpoint.SMALL", 0)
    monkeypatch.setattr("fedzo.records.changes._LONG", 1)
    monkeypatch.setattr(
        importlib.import_module("scenarios.runs.simulate"), "_draw", lambda *_: None
    )


def experiment(engine: str = "inprocess") -> Experiment:
    settings = {"scenario.dim": 3, "client.num_directions": 2, "strategy.participation": 0.5}
    return make_experiment(
        "quadratic", "scaffold2", engine=engine, num_rounds=4, num_clients=4, settings=settings
    )


def unfinished(out: Path) -> None:
    """Leave what a run leaves that is killed after some rounds."""

    def stop(snapshot: object) -> bool:
        if snapshot.record.round_index == KILLED_AFTER:  # type: ignore[attr-defined]
            raise Killed
        return False

    with pytest.raises(Killed):
        simulate(experiment(), out=out, callbacks=[stop])


def bits(result: RunResult) -> object:
    records = [record.to_json().split('"wall_s"')[0] for record in result.records]
    return result.x.numpy().tobytes(), records, result.queries


def outcome(out: Path, expected: object) -> str:
    try:
        found = bits(simulate(experiment(), out=out, resume=True))
    except FedzoError:
        return "refused"
    return "same" if found == expected else "different"


def flips(folder: Path, *, share: float) -> Iterator[tuple[Path, bytes]]:
    """Yield every file with one bit of one of its bytes flipped, for this share of the bytes."""
    drawn = random.Random(0)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for position in range(len(whole)):
            bit = 1 << drawn.randrange(8)
            if drawn.random() < share:
                changed = bytes([whole[position] ^ bit])
                yield path.relative_to(folder), (whole[:position] + changed + whole[position + 1 :])


def tried(tmp_path: Path, share: float) -> Counter[str]:
    unfinished(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    expected = bits(simulate(experiment(), out=tmp_path / "whole", resume=True))
    found: Counter[str] = Counter()
    for path, content in flips(tmp_path / "run", share=share):
        shutil.copytree(tmp_path / "run", tmp_path / "flipped")
        (tmp_path / "flipped" / path).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FedzoWarning)
            found[f"{path.name}: {outcome(tmp_path / 'flipped', expected)}"] += 1
        shutil.rmtree(tmp_path / "flipped")
    print(dict(found))
    return found


def refused_or_same(found: Counter[str]) -> None:
    assert not [name for name in found if name.endswith("different")], found
    assert sum(n for name, n in found.items() if name.endswith("refused")) > 0


@pytest.mark.more
def test_a_flipped_bit_is_refused_or_harmless(tmp_path: Path) -> None:
    refused_or_same(tried(tmp_path, share=0.003))


@pytest.mark.slow
def test_a_flipped_bit_in_any_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    refused_or_same(tried(tmp_path, share=1.0))

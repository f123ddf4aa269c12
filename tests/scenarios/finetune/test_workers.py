"""`fedzo finetune --workers`: the steps of one process, and ends that are told."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedzo.errors import ConfigError, FedzoWarning, RunError
from scenarios.finetune.trainers import Finetuning
from scenarios.finetune.training import Look, finetune

ALONE = Finetuning(
    task="digits_cnn",
    examples=64,
    looks=3,
    forwards=1024,
    method="zo_sgd",
    settings="num_directions=4",
)
pytestmark = pytest.mark.xdist_group("ray")


def parameters(out: Path) -> torch.Tensor:
    held = load_file(out / "model.safetensors")
    return torch.cat([held[name].reshape(-1) for name in sorted(held)])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"workers": 3, "data_parallel": 2}, "workers=3 must be a multiple of data_parallel=2"),
        ({"batch_size": 9, "workers": 2, "data_parallel": 2}, "batch_size=9"),
        ({"workers": 0}, "workers=0"),
        ({"workers": 2, "method": "first_order", "settings": ""}, "steps by more than values"),
        ({"address": "127.0.0.1:1"}, "at least 2"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        replace(ALONE, **changed)  # type: ignore[arg-type]


@pytest.mark.slow
def test_workers_lead_to_the_same_bits_after_a_stop_too(tmp_path: Path) -> None:
    alone = finetune(ALONE, out=tmp_path / "alone")

    class Stopped(Exception):
        pass

    def stop(look: Look) -> None:
        if look.forwards >= 512:
            raise Stopped

    two = replace(ALONE, workers=2)
    with pytest.raises(Stopped):
        finetune(two, out=tmp_path / "two", told=stop)
    looks = finetune(two, out=tmp_path / "two")
    assert torch.equal(parameters(tmp_path / "alone"), parameters(tmp_path / "two"))
    told, of_one = ([str(replace(look, seconds=0)) for look in run] for run in (looks, alone))
    assert told == of_one
    finetune(replace(two, data_parallel=2), out=tmp_path / "data")
    torch.testing.assert_close(
        parameters(tmp_path / "data"), parameters(tmp_path / "alone"), atol=1e-4, rtol=0
    )


@pytest.mark.slow
def test_places_too_few_for_the_workers_are_told() -> None:
    with pytest.warns(FedzoWarning, match="1 of them"):
        finetune(replace(ALONE, settings="", workers=3, forwards=64))


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_run(tmp_path: Path) -> None:
    def kill(look: Look) -> None:
        helpers = [pid for pid in _children(os.getpid()) if b"ray::Helper" in _command(pid)]
        if look.forwards >= 512:
            for pid in helpers:
                os.kill(pid, signal.SIGKILL)
            assert helpers

    with pytest.raises(RunError, match="a process that trains with this one ended"):
        finetune(replace(ALONE, workers=2), out=tmp_path / "run", told=kill)
    finetune(ALONE, out=tmp_path / "alone")
    finetune(replace(ALONE, workers=1), out=tmp_path / "run")
    assert torch.equal(parameters(tmp_path / "alone"), parameters(tmp_path / "run"))


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _children(pid: int) -> list[int]:
    """Return the processes below one, by /proc."""
    parents = dict[int, int]()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
    below, found = [pid], list[int]()
    while below:
        last = below.pop()
        own = [child for child, parent in parents.items() if parent == last]
        found += own
        below += own
    return found

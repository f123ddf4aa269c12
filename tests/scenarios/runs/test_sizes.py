"""Settings and files of settings that ask for the absurd end in a sentence."""

import importlib
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedzo.errors import ConfigError
from fedzo.setting_texts import parse_setting
from scenarios.cli.app import app
from scenarios.runs.config_file import LARGEST, read_experiment
from scenarios.runs.experiment import make_experiment


@pytest.mark.parametrize(
    ("counts", "settings"),
    [
        ({"num_clients": 10**9}, {}),
        ({"num_clients": 10**30}, {}),
        ({"num_rounds": 10**18}, {}),
        ({"query_budget": 10**30}, {}),
        ({}, {"scenario.dim": 10**12}),
        ({}, {"scenario.dim": 10**400}),
        ({"num_clients": 10**5}, {"scenario.dim": 10**8}),
        ({}, {"client.num_directions": 10**12}),
        ({}, {"strategy.local_steps": 10**300}),
    ],
)
def test_absurd_counts_are_refused(counts: dict[str, int], settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"at most|GB, and this machine has|not allowed|must be"):
        make_experiment("quadratic", "fedzo", settings=settings, **counts)


@pytest.mark.parametrize("hidden", ["1000000000", "1000000,1000000"])
def test_absurd_networks_are_refused(hidden: str) -> None:
    with pytest.raises(ConfigError, match="GB, and this machine has"):
        make_experiment("metric", "fzoos", settings={"scenario.hidden": hidden})


@pytest.mark.parametrize(
    "text",
    [
        *("a=" + "[" * 100_000, "a=" + "{a=" * 50_000, "seed=" + "9" * 5000, "seed=1\nseed=2"),
        *(
            "seed" + ".a" * 5000 + "=1",
            "[a" + ".a" * 5000 + "]",
            "seed=1\0",
            "#" * (LARGEST + 1),
            "seed=[1]",
            "set=3",
        ),
        *('seed="x"', "[set.client]\nmu=1\n[set.client]\nmu=2", "seed=true", "set.client=1"),
    ],
    ids=lambda text: text[:20],
)
def test_hostile_files_of_settings_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_experiment(path)


def test_what_is_no_file_of_settings_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name, said in (("pipe", "named pipe"), ("bytes", "no TOML"), ("absent", "No such file")):
        with pytest.raises(ConfigError, match=said):
            read_experiment(tmp_path / name)
    with pytest.raises(ConfigError, match="Is a directory"):
        read_experiment(tmp_path)
    with pytest.raises(ConfigError, match="longer than"):
        read_experiment(Path("/dev/zero"))


@pytest.mark.parametrize("raw", ["[" * 100_000, "9" * 5000, "1\nb=2"], ids=len)
def test_hostile_settings_are_texts(raw: str) -> None:
    assert parse_setting(f"a={raw}") == ("a", raw)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")],
)
def test_too_little_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def greedy(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("scenarios.runs.simulate"), "simulate", greedy)
    done = CliRunner().invoke(app, ["run", "quadratic", "--strategy", "fedzo"])
    assert done.exit_code == 1
    assert "ask for more memory than there is" in done.stderr

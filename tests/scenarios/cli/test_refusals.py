"""Options that would be ignored end in a sentence that names them, with status 2, and no file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scenarios.cli.app import app

REFUSED = {
    "compare quadratic --x queries": "--x queries is the axis of the figure in --out",
    "compare quadratic --logx": "--logx is of the figure in --out; add --out, or --figure FILE",
    "compare quadratic --figure a.foo": "a.foo has no suffix of a format",
    "compare quadratic --figure a.pdf --size 3": "--size '3' is not W,H",
    "compare quadratic --figure a.pdf --style ggplt": "did you mean ggplot?",
    "compare quadratic --attacks none --figure a.pdf": "--figure a.pdf has no meaning for a grid",
    "compare quadratic --attacks none --ylim 0,1": "--ylim has no meaning for a grid",
    "compare quadratic --measure value": "--measure is for a grid",
    "compare quadratic --attacks none --x bytes": "--x bytes has no meaning for a grid",
    "compare quadratic --attacks none --reach 0.1": "--at and --reach have no meaning for a grid",
    "compare quadratic --vary scenario.dim=3,5 --vary scenario.dim=3": "--vary is given 2 times",
    "compare quadratic --resume": "--resume needs --out",
    "compare quadratic --strategies fedavg --set scenario.noise_std=0.1": "has no effect",
    "list --engine ray": "--engine ray has no effect without SCENARIO",
    "list --strategy fedzo": "--strategy fedzo has no effect without SCENARIO",
    "run quadratic --strategy fedavg --set scenario.noise_std=0.1": "noise_std=0.1 has no effect",
    "run quadratic --strategy fedzo --set client.beta=0.5": "client.beta",
    "run quadratic --strategy fedzo --resume": "resume needs",
    "attack mnist --resume": "--resume needs --out",
    "attack mnist --attacker hopskipjump --loss boundary": "finds the boundary itself",
    "attack mnist --radius eight": "radius='eight' is no number",
    "attack mnist --attacker simba --set attacker.colour=1": "attacker.colour",
    "attack mnist --set victim.seed=3": "victim.seed",
    "defend mnist --set victim.query_cost=2": "victim.query_cost=2.0 has no effect on a defense",
    "audit fedzo": "claims no epsilon",
    "audit diff2 --set engine.chunk_size=3": "has no effect on an audit",
    "audit diff2 --set scenario.dim=3": "has no effect on an audit",
    "audit diff2 --confidence nan": "confidence=nan must be above 0 and below 1",
    "audit diff2 --seed -1": "seed=-1 must be 0 or more",
    "audit diff2 --out roc.foo": "roc.foo has no suffix of a format",
    "compare quadratic --strategies fedzo --reach value=nan": "--reach 'value=nan' is not METRIC=V",
    "compare quadratic --strategies fedzo --at queries=nan": "--at 'queries=nan' is not AXIS=N",
    "deploy quadratic --nodes 0": "--nodes 0 must be at least 1",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_would_be_ignored_is_refused(words: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        wanted = words.split() if words.startswith("list") else [*words.split(), "--json"]
        done = CliRunner().invoke(app, wanted)
    assert done.exit_code == 2, done.output
    told = json.loads(done.stdout)["error"] if done.stdout.startswith("{") else done.stderr
    assert REFUSED[words] in " ".join(told.split())
    assert not [*tmp_path.iterdir()], "nothing is written"


@pytest.mark.parametrize("damage", [b"", b"PK", None])
@pytest.mark.parametrize("command", ["attack", "defend"])
def test_damaged_images_end_in_a_sentence(
    command: str, damage: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, images=np.zeros((4, 28, 28)), labels=np.zeros(4, dtype=int))
    path.write_bytes(path.read_bytes()[:900] if damage is None else damage)
    done = CliRunner().invoke(app, [command, "mnist", "--set", f"victim.data={path}"])
    assert done.exit_code == 2
    assert "is no .npz file with arrays `images` and `labels`" in " ".join(done.stderr.split())


@pytest.mark.parametrize("command", ["attack", "defend"])
def test_what_holds_a_run_is_not_written_over(command: str, tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text("")
    done = CliRunner().invoke(app, [command, "mnist", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "holds a run; name another directory" in " ".join(done.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.toml"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("run quadratic --set client.mu=0.1 --set client.mu=0.2", "given both 0.1 and 0.2"),
        ("sweep quadratic --set client.mu=0.1 --set client.mu=0.1,0.2", "a value and several"),
        ("attack mnist --set attacker.area=0.1 --set attacker.area=0.2", "given both 0.1 and 0.2"),
        ("attack mnist --radius 8", "radius=8 is more than pixels in [0, 1] can differ"),
        ("run quadratic --set client.mu=0.1,0.2", "several values are for `fedzo sweep`"),
        ("run sim.py", "your own is sim.py:NAME"),
        ("run quadratic --resume runs/a", "with --resume, name the directory alone or by --out"),
        ("compare quadratic --out=", "--out names nothing; is a variable of the shell unset?"),
        ("retime runs/a --fleet silo,silo", "--fleet names silo twice; name every fleet once"),
        ("defend mnist --samples 0", "--samples=0 must be at least 1"),
        (
            "run quadratic --strategy seed_scalar --set compression.up=int8",
            "rule=in_place (that of strategy=seed_scalar); leave it out",
        ),
        (
            "run quadratic --set fleet.preset=mobile --set fleet.speed_spread=1000",
            "speed_spread=1000.0 must be from 0 to 10",
        ),
        ("run quadratic --set engine.num_actors=2", "is a setting of the engine ray, not of this"),
        (
            "run regression --strategy dp_gd --set strategy.num_byzantine=1",
            "aggregator=mean withstands no liars; with num_byzantine=1 use trimmed_mean or median",
        ),
        ("list fzoos", "it is a strategy: --strategy fzoos"),
        ("new objective class", "a word of Python's own"),
    ],
)
def test_what_newcomers_typed_ends_in_a_sentence(words: str, sentence: str) -> None:
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 2
    assert sentence in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.more
@pytest.mark.parametrize(
    "words", ["list", "list quadratic", "run quadratic --rounds 0 --json", "--help"]
)
def test_what_finds_no_room_to_be_printed_is_told_in_a_sentence(words: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "scenarios.cli", *words.split()],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: what is printed cannot be written: No space left on device\n"


def test_texts_of_a_task_without_any_are_refused() -> None:
    told = CliRunner().invoke(app, ["finetune", "digits_cnn", "--data-dir", "downloads"])
    assert told.exit_code == 2
    assert "data_dir=downloads has no effect on task=digits_cnn" in " ".join(told.stderr.split())

"""What is saved as PNG is what the victim was asked, and what the report calls a success is one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from fedzo.attacks.attack import AttackSettings, attack
from fedzo.attacks.attackers.square import Square
from fedzo.attacks.region import on_levels
from fedzo.attacks.victims.victim import Answers, from_scores
from scenarios.cli.app import app

NAMES = ["dark", "bright", "neither"]
MODEL = """
import numpy as np

def model(images):
    mean = images.mean(axis=(1, 2, 3))
    return np.stack([0.5 - mean, mean - 0.5, np.full_like(mean, -1)], axis=1)
"""


def model(images: Tensor) -> Tensor:
    mean = images.double().mean(dim=(1, 2, 3))
    return torch.stack([0.5 - mean, mean - 0.5, torch.full_like(mean, -1)], dim=1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0)
    for name, low in (("dark", 116), ("bright", 120)):
        for number in range(4):
            path = tmp_path / "pictures" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = drawn.integers(low, low + 20, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(values).save(path)
    (tmp_path / "mine.py").write_text(MODEL)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    return tmp_path


def go(place: Path, *more: str) -> tuple[int, str]:
    usual = {"data": f"{place}/pictures", "classes": f"{place}/names.txt"}
    kept = {name: v for name, v in usual.items() if f"victim.{name}=" not in " ".join(more)}
    given = [word for name, v in kept.items() for word in ("--set", f"victim.{name}={v}")]
    victim = f"{place}/mine.py:model"
    done = CliRunner().invoke(app, ["attack", victim, "--images", "6", *given, *more])
    return done.exit_code, done.stderr


@pytest.mark.more
@pytest.mark.parametrize("norm", [["--radius", "20/255"], ["--norm", "l2", "--radius", "1.2"]])
@pytest.mark.parametrize("attacker", ["square", "thompson"])
def test_files_hold_the_successes_that_are_reported(
    norm: list[str], attacker: str, place: Path
) -> None:
    out = place / "out"
    more = ("--attacker", attacker, "--query-budget", "60", "--out", str(out), "--png")
    assert go(place, *norm, *more)[0] == 0
    report = json.loads((out / "report.json").read_text())
    assert report["success_rate"] > 0
    for one in report["each"]:
        found = read(out / "png" / f"{one['place']:05}-adversarial.png")
        original = read(out / "png" / f"{one['place']:05}-original.png")
        source = read(place / "pictures" / one["file"])
        assert np.array_equal(original, source)
        assert one["label_name"] == Path(one["file"]).parent.name == NAMES[one["label"]]
        answer = int(model(torch.from_numpy(found).permute(2, 0, 1)[None]).argmax())
        assert (answer != one["label"]) == one["success"]
        assert NAMES[answer] == one["answer_name"] or not one["success"]
        change = found.astype(np.float64) - original
        size = np.abs(change).max() if "l2" not in norm else np.sqrt((change**2).sum())
        assert size <= report["radius"] + 1e-6


def read(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened, dtype=np.float32) / 255


@pytest.mark.more
def test_a_table_has_a_folder_of_pictures_for_each(place: Path) -> None:
    out = place / "out"
    more = ("--query-budget", "20", "--out", str(out), "--png", "--radius", "4/255,20/255")
    assert go(place, "--attacker", "square", *more)[0] == 0
    folders = sorted(path.parent.name for path in out.glob("*/png"))
    assert len(folders) == 2
    assert all(len(list(path.glob("*.png"))) == 18 for path in out.glob("*/png"))


def test_a_target_may_be_named(place: Path) -> None:
    out = place / "out"
    more = ("--attacker", "square", "--query-budget", "60", "--radius", "0.2", "--out", str(out))
    assert go(place, "--images", "3", "--target", "bright", *more)[0] == 0
    report = json.loads((out / "report.json").read_text())
    assert {one["label_name"] for one in report["each"]} == {"dark"}
    assert {one["answer"] for one in report["each"] if one["success"]} == {1}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--png",), "--png needs a directory"),
        (("--png", "--out", "{}/o", "--levels", "16"), "a PNG file holds whole steps of 1/255"),
        (("--target", "brigt"), "unknown class brigt; did you mean bright?"),
        (
            ("--set", "victim.data=mnist", "--set", "victim.size=9"),
            "cuts photos or the pictures of a folder",
        ),
        (("--set", "victim.classes={}/short.txt", "--target", "0"), "class of"),
    ],
)
def test_bad_input_is_one_sentence(more: tuple[str, ...], said: str, place: Path) -> None:
    (place / "short.txt").write_text("dark\n")
    status, told = go(place, *(text.format(place) for text in more))
    assert (status, said in told, "Traceback" in told) == (2, True, False), told
    assert not (place / "o").exists()


class Seeing:
    """A victim that keeps what it is shown."""

    tells = "logits"

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def ask(self, images: Tensor) -> Answers:
        self.seen.append(images.clone())
        return from_scores(model(images).float())


@given(some.integers(2, 255), some.integers(0, 2**31))
def test_a_victim_is_shown_whole_steps_to_the_last_bit(levels: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, levels + 1, (2, 1, 6, 6))
    images = torch.from_numpy(drawn.astype(np.float32)) / levels
    victim = Seeing()
    settings = AttackSettings(radius=0.3, query_budget=12, levels=levels, seed=seed)
    attack(victim, images, torch.zeros(2, dtype=torch.int64), Square(), settings)
    shown = torch.cat(victim.seen)
    whole = (shown * levels).round()
    assert torch.equal(shown, whole / levels)
    assert torch.equal(on_levels(shown, levels), shown)

"""Attackers of the user's: what their classes say, and what is said where they are none."""

from pathlib import Path

import pytest

from fedzo.attacks.coordinates import Coordinates
from fedzo.errors import ConfigError
from scenarios.attacks.attackers import check_coordinates, make_attacker

TEXT = """
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True, kw_only=True)
class Still:
    size: float = 0.5
    def search(self, task):
        yield task.region.lower.unsqueeze(0)

@dataclass(frozen=True, kw_only=True)
class Blind(Still):
    needs: ClassVar = ("labels",)
    coordinates: ClassVar = ("pixels", "waves")

class Wrong(Still):
    needs = ("everything",)

class Plain:
    pass
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(TEXT)
    return path


def test_a_class_says_what_it_needs_and_where_it_searches(file: Path) -> None:
    made = make_attacker(f"{file}:Still", "logits", {"size": 2})
    assert made.size == 2.0  # type: ignore[attr-defined]
    make_attacker(f"{file}:Blind", "labels", {})
    check_coordinates(f"{file}:Blind", Coordinates("waves", 7))


@pytest.mark.parametrize(
    ("name", "tells", "said"),
    [
        ("Still", "labels", "needs a victim that tells logits or probabilities, and this one"),
        ("Wrong", "logits", r"needs=\('everything',\) must be a tuple of logits, probabilities"),
        ("Plain", "logits", "name a dataclass of its settings with a method search"),
        ("Gone", "logits", "has no 'Gone'; it has "),
    ],
)
def test_what_is_no_attacker_is_told(file: Path, name: str, tells: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_attacker(f"{file}:{name}", tells, {})  # type: ignore[arg-type]


def test_its_settings_and_coordinates_are_checked(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting attacker.siz; did you mean"):
        make_attacker(f"{file}:Still", "logits", {"siz": 2})
    with pytest.raises(ConfigError, match="does not search in waves, but in pixels; use attacker"):
        check_coordinates(f"{file}:Still", Coordinates("waves", 7))

"""Answers are kept part by part, and what stands around a victim goes on where it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.resuming import at_once, recall, replay
from fedzo.attacks.victims.detector import DuplicateDetector
from fedzo.attacks.victims.memory import Remembered
from fedzo.attacks.victims.victim import Answers, CallableVictim, Victim
from fedzo.attacks.victims.wrappers import (
    LabelOnly,
    Latency,
    Meter,
    NoisyScores,
    QueryLimit,
    RoundedScores,
)
from fedzo.errors import ConfigError, ObjectiveError
from fedzo.randomness import stream
from fedzo.records.sealed_line import unseal
from scenarios.attacks.single_attack import Plan, attack_victim
from scenarios.victims.smoothed import SmoothedVictim

WEIGHTS = stream(0, "weights").standard_normal((16, 3))


def scores(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Score image by image, so that company changes no bit."""
    return np.array([(row.reshape(-1) - 0.5) @ WEIGHTS for row in images.astype(np.float64)])


def pictures(count: int) -> Tensor:
    return torch.from_numpy(stream(0, "images").random((count, 1, 4, 4))).float()


class Remote:
    """A victim that is asked in requests of a size, and is gone after some of them."""

    tells = "logits"

    def __init__(self, batch: int, requests: int = 1000) -> None:
        self.batch, self.left = batch, requests
        self.asked: list[Tensor] = []

    def ask(self, images: Tensor) -> Answers:
        for part in images.split(self.batch):
            if not self.left:
                raise ObjectiveError("gone")
            self.left -= 1
            self.asked.append(part)
        return CallableVictim(scores).ask(images)

    @property
    def paid(self) -> int:
        return sum(map(len, self.asked))


AROUND: dict[str, Callable[[Any], Victim]] = {
    "plain": lambda v: v,
    "meter": Meter,
    "labels": LabelOnly,
    "rounded": lambda v: RoundedScores(v, 2),
    "late": lambda v: Latency(v, sleep=lambda _: None),
    "noisy": lambda v: NoisyScores(v, 0.3, generator=stream(0, "noise")),
    "limit": lambda v: QueryLimit(v, 25),
    "detector": lambda v: DuplicateDetector(v, 0.08, 2),
    "noisy labels": lambda v: LabelOnly(NoisyScores(v, 0.3, generator=stream(0, "noise"))),
    "limited noise": lambda v: NoisyScores(QueryLimit(v, 25), 0.3, generator=stream(0, "noise")),
    "noise, detected": lambda v: DuplicateDetector(
        NoisyScores(v, 0.3, generator=stream(0, "noise")), 0.08, 2
    ),
    "smoothed": lambda v: smoothed(v),
    "smoothed noise": lambda v: smoothed(NoisyScores(v, 0.3, generator=stream(0, "noise"))),
}


def smoothed(victim: Victim) -> Victim:
    return SmoothedVictim(victim, None, 0.1, generator=stream(0, "votes"), votes=4, num_classes=3)


@pytest.mark.parametrize("name", AROUND)
def test_what_is_answered_is_kept_when_a_later_part_fails(name: str, tmp_path: Path) -> None:
    images, journal = pictures(9), tmp_path / "journal"
    first, second = Remote(8, requests=3), Remote(8)
    parts = (2, 4, 3) if "smoothed" in name else (9,)
    remembered = Remembered(AROUND[name](first), journal, name="v")
    if at_once(remembered._victim) == 8:
        first.left, first.batch = 1, 4
        parts = (4, 4, 1)
    with pytest.raises(ObjectiveError, match="gone"):
        remembered.ask(images)
    kept = journal.read_text().count("\n") - 1
    assert kept > 0, parts
    again = Remembered(AROUND[name](second), journal, name="v")
    again.ask(images)
    assert again.replayed == kept
    if "smoothed" not in name:
        assert first.paid == kept
        assert first.paid + second.paid == journal.read_text().count("\n") - 1


@pytest.mark.more
@pytest.mark.parametrize("name", AROUND)
def test_an_attack_goes_the_same_way_after_an_interruption(name: str, tmp_path: Path) -> None:
    share, images = 0.6, pictures(12)
    labels = torch.from_numpy(scores(images.numpy()).argmax(1))
    attacker = "edge" if "labels" in name else "square"
    settings = AttackSettings(radius=0.05, query_budget=12)
    plan = Plan(num_images=2, attacker=attacker, settings=settings)

    def run(journal: Path) -> Any:
        victim = AROUND[name](CallableVictim(scores))
        return attack_victim(victim, images, labels, plan, journal=journal, name="v")

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = run(whole)
    lines = whole.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[: round(share * len(lines))]))
    found = run(cut)
    assert cut.read_text() == whole.read_text()
    assert found.replayed == round(share * len(lines)) - 1
    for one, other in zip(expected.found, found.found, strict=True):
        assert torch.equal(one.delta, other.delta)
        assert (one.queries, one.refused, one.loss) == (other.queries, other.refused, other.loss)


def test_a_limit_holds_over_attacks_that_go_another_way(tmp_path: Path) -> None:
    """Whatever is asked after the interruption, no more than the limit is answered in all."""
    images, journal = pictures(20), tmp_path / "journal"
    Remembered(QueryLimit(CallableVictim(scores), 12), journal, name="v").ask(images[:8])
    later = Remembered(QueryLimit(CallableVictim(scores), 12), journal, name="v")
    assert int(later.ask(images[8:]).answered.sum()) == 4
    inside = smoothed(QueryLimit(CallableVictim(scores), 100))
    recall(inside, 20)
    assert inside.victim.remaining == 20  # type: ignore[attr-defined]


def test_a_victim_that_knows_nothing_of_it_is_left_alone() -> None:
    victim = CallableVictim(scores)
    recall(victim, 3)
    replay(victim, pictures(1))
    assert at_once(victim) is None
    assert at_once(Meter(LabelOnly(Remote(7)))) == 7
    assert at_once(smoothed(Remote(7))) == 1


def test_a_journal_of_other_answers_is_left_alone(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    Remembered(CallableVictim(scores), journal, name="v").ask(pictures(2))
    with pytest.raises(ConfigError, match="other answers than the labels"):
        Remembered(LabelOnly(CallableVictim(scores)), journal, name="v")
    first, *rest = [unseal(line) + "\n" for line in journal.read_text().splitlines()]
    journal.write_text(json.dumps({"answers_of": "v"}) + "\n" + "".join(rest))
    assert "tells" in first
    with pytest.raises(ConfigError, match="other answers than the labels"):
        Remembered(LabelOnly(CallableVictim(scores)), journal, name="v")
    again = Remembered(CallableVictim(scores), journal, name="v")
    again.ask(pictures(2))
    assert again.replayed == 2


def test_a_journal_keeps_the_precision_of_what_was_told(tmp_path: Path) -> None:
    class Precise:
        tells = "logits"

        def ask(self, images: Tensor) -> Answers:
            table = torch.full((len(images), 2), 1 + 1e-12, dtype=torch.float64)
            return Answers(
                torch.zeros(len(images), dtype=torch.int64), table, torch.ones(len(images)) > 0
            )

    journal = tmp_path / "journal"
    first = Remembered(Precise(), journal, name="v").ask(pictures(2)).scores
    second = Remembered(Precise(), journal, name="v").ask(pictures(2)).scores
    assert first is not None
    assert second is not None
    assert second.dtype == torch.float64
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "line", ['{"image": "a", "label": 1, "scores": [1.0], "dtype": "x"}', "[" * 9999]
)
def test_damage_is_named(line: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text('{"answers_of": "v"}\n' + line + "\n")
    with pytest.raises(ConfigError, match="damaged"):
        Remembered(CallableVictim(scores), journal, name="v")

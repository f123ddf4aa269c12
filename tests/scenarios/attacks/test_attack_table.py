"""A table of attacks is its single attacks, screened once, and its curve counts what withstood."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.victims.detector import DuplicateDetector
from fedzo.attacks.victims.victim import Answers, CallableVictim, Victim
from fedzo.attacks.victims.wrappers import (
    Around,
    LabelOnly,
    Meter,
    NoisyScores,
    OrderOnly,
    QueryLimit,
)
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.attacks.attack_table import AttackTable
from scenarios.attacks.one_call import attack
from scenarios.attacks.plan import Plan, table_of
from scenarios.attacks.single_attack import attack_by_plans, attack_victim
from scenarios.attacks.table_report import cell_name, write_table

WEIGHTS = stream(0, "weights").standard_normal((36, 3))
IMAGES = stream(0, "images").random((30, 1, 6, 6)).astype(np.float32)


def scores(images: np.ndarray) -> np.ndarray:
    """Scores of one image at a time: those of a batch depend on its size, in the last bit."""
    return np.array([(image.reshape(-1).astype(np.float64) - 0.5) @ WEIGHTS for image in images])


LABELS = scores(IMAGES).argmax(1)
LABELS[::5] = (LABELS[::5] + 1) % 3
PLAN = Plan(num_images=4, settings=AttackSettings(query_budget=24, seed=2))


def table(victim: Victim, attackers: list[str], radii: list[float], **more: Any) -> AttackTable:
    plans = table_of(PLAN, attackers, radii, {"square": {"area": 0.3}})
    return AttackTable(attack_by_plans(victim, IMAGES, LABELS, plans, **more))


@pytest.mark.more
@pytest.mark.parametrize(
    ("around", "attackers"),
    [(Meter, ["square", "simba"]), (LabelOnly, ["edge", "hopskipjump"]), (OrderOnly, ["rank"])],
    ids=["scores", "labels", "order"],
)
def test_each_cell_is_the_single_attack(around: Any, attackers: list[str]) -> None:
    meter = Meter(around(CallableVictim(scores)))
    found = table(meter, attackers, [0.1, 0.03])
    assert [one.plan.settings.radius for one in found.reports] == [0.03, 0.1] * len(attackers)
    for cell in found.reports:
        alone = attack_victim(around(CallableVictim(scores)), IMAGES, LABELS, cell.plan)
        assert torch.equal(alone.adversarials, cell.adversarials)
        assert [one.queries for one in alone.found] == [one.queries for one in cell.found]
        assert cell.screening_queries in (0, alone.screening_queries)
    told = found.summary()
    paid = told["queries"] + told["screening_queries"]
    assert paid == told["victim_queries"] + told["replayed"]
    assert meter.queries == told["victim_queries"]


WRAPPED = {
    "limit": lambda: QueryLimit(CallableVictim(scores), 60),
    "detector": lambda: DuplicateDetector(CallableVictim(scores), 0.06, 4),
    "noisy": lambda: NoisyScores(CallableVictim(scores), 0.3, generator=stream(1, "noise")),
    "labels of a limit": lambda: LabelOnly(QueryLimit(CallableVictim(scores), 60)),
}


@pytest.mark.more
@pytest.mark.parametrize("name", WRAPPED)
def test_each_cell_of_a_victim_that_remembers_is_the_single_attack(
    name: str, tmp_path: Path
) -> None:
    make = WRAPPED[name]
    attackers = ["edge", "hopskipjump"] if "labels" in name else ["square", "simba"]
    found = table(make(), attackers, [0.1, 0.03], journal=tmp_path / "answers.jsonl")
    for cell in found.reports:
        alone = attack_victim(make(), IMAGES, LABELS, cell.plan)
        assert torch.equal(alone.adversarials, cell.adversarials)
        assert [one.queries for one in alone.found] == [one.queries for one in cell.found]
        assert alone.success_rate == cell.success_rate
        assert alone.screening_queries == cell.screening_queries
    for file in tmp_path.iterdir():
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[: len(lines) // 2]))
    again = table(make(), attackers, [0.1, 0.03], journal=tmp_path / "answers.jsonl")
    for one, other in zip(found.reports, again.reports, strict=True):
        assert torch.equal(one.adversarials, other.adversarials)
        assert [f.queries for f in one.found] == [f.queries for f in other.found]
        assert other.replayed > 0


class Locked(Around):
    """Holds what cannot be copied."""

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim)
        self.lock = threading.Lock()

    def ask(self, images: torch.Tensor) -> Answers:
        with self.lock:
            return self.victim.ask(images)


def test_what_cannot_be_copied_is_shared_and_names_of_files_make_journals(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from fedzo.attacks.attackers.square import Square\nclass Mine(Square):\n    pass\n"
    )
    found = table(
        QueryLimit(Locked(CallableVictim(scores)), 60),
        [f"{tmp_path}/own.py:Mine"], [0.1, 0.2], journal=tmp_path / "answers.jsonl",
    )  # fmt: skip
    assert [cell.replayed for cell in found.reports] == [0, 0]
    assert len([*tmp_path.glob("answers-*.jsonl")]) == 2


def test_robust_accuracy_counts_what_was_right_and_withstood() -> None:
    found = table(CallableVictim(scores), ["square"], [0.02, 0.1])
    wrong = len(found.reports[0].screened.misclassified)
    assert wrong > 0
    assert found.accuracy == 4 / (4 + wrong)
    for cell in found.reports:
        left = sum(not one.success for one in cell.found)
        assert cell.robust_accuracy == pytest.approx(left / (4 + wrong))
    assert found.accuracy >= found.reports[0].robust_accuracy > found.reports[1].robust_accuracy
    told = found.to_json()["cells"][0]
    assert len(told["wrong"]) == wrong
    for one in told["wrong"]:
        assert scores(IMAGES[[one["place"]]]).argmax() == one["answer"] != LABELS[one["place"]]
    for one in told["each"]:
        assert LABELS[one["place"]] == one["label"]


def test_an_interrupted_table_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    first = table(Meter(CallableVictim(scores)), ["square", "simba"], [0.05, 0.1], journal=whole)
    lines = whole.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[: len(lines) // 2]))
    meter = Meter(CallableVictim(scores))
    again = table(meter, ["square", "simba"], [0.05, 0.1], journal=cut)
    assert cut.read_text() == whole.read_text()
    assert meter.queries == len(lines) - len(lines) // 2
    for one, other in zip(first.reports, again.reports, strict=True):
        assert torch.equal(one.adversarials, other.adversarials)
        assert one.success_rate == other.success_rate


def test_a_table_from_python_and_its_files(tmp_path: Path) -> None:
    found = attack(
        scores, IMAGES, LABELS, radius=["8/255", 0.1], attacker=["square", "simba"], query_budget=9
    )
    assert isinstance(found, AttackTable)
    assert found.attackers == ["square", "simba"]
    assert found.radii == [8 / 255, 0.1]
    assert len(found.reports[0].found) == 24
    assert len(attack(scores, IMAGES, LABELS, radius=[0.1], query_budget=9).reports) == 1
    told = attack(scores, IMAGES, LABELS, radius=(0.1, 0.2), query_budget=9)
    assert [one.attacker for one in told.reports] == ["thompson", "thompson"]
    found = attack(
        *(scores, IMAGES, LABELS), radius=["8/255", 0.1], attacker=["square"],
        query_budget=9, num_images=2,
    )  # fmt: skip
    write_table(tmp_path, "mine", found)
    names = {cell_name(one) for one in found.reports}
    assert {path.name for path in tmp_path.iterdir()} == {*names, "table.json", "figure.png"}
    assert "square-0.0313725" in names


def test_what_makes_no_table_is_refused() -> None:
    for given, sentence in (
        ({"radius": [0.1, "1/10"]}, "radius 0.1 is given 2 times"),
        ({"attacker": ["square", "square"]}, "attacker square is given 2 times"),
        ({"radius": []}, r"radius=\[\] must be one, or a list"),
        ({"radius": [0.1, -1]}, "radius=-1 must be positive"),
        ({"attacker": ["square", "edg"]}, "unknown attacker edg; did you mean edge"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            attack(scores, IMAGES, LABELS, **given)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="universal=True with several"):
        table_of(Plan(settings=AttackSettings(universal=True)), ["square"], [0.1, 0.2], {})


def test_an_image_that_became_a_third_class_does_not_stand() -> None:
    settings = replace(PLAN.settings, radius=0.2, query_budget=8)
    plan = replace(PLAN, num_images=12, target=0, settings=settings)
    report = attack_victim(CallableVictim(scores), IMAGES, LABELS, plan)
    told = scores(report.adversarials.numpy()).argmax(1)
    standing = (told == report.labels.numpy()).tolist()
    assert list(report.standing) == standing
    assert sum(standing) < sum(not found.success for found in report.found)
    share = report.screened.accuracy * sum(standing) / len(standing)
    assert report.robust_accuracy == pytest.approx(share)


def test_what_breaks_in_a_smaller_ball_breaks_in_a_larger_one() -> None:
    radii = [0.05, 0.06, 0.07, 0.08, 0.09, 0.1]
    found = table(CallableVictim(scores), ["square", "simba"], radii)
    for attacker in found.attackers:
        told = [found.robust_accuracy(one) for one in found.of(attacker)]
        assert told == sorted(told, reverse=True)
        assert all(a <= b.robust_accuracy for a, b in zip(told, found.of(attacker), strict=True))


def test_a_victim_that_refuses_is_said_to() -> None:
    plan = replace(PLAN, settings=replace(PLAN.settings, radius=1e-4, query_budget=300))
    report = attack_victim(QueryLimit(CallableVictim(scores), 20), IMAGES, LABELS, plan)
    assert {found.success for found in report.found} == {False}
    assert "images in a row were refused" in report.found[-1].reason

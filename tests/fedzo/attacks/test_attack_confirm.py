"""A lucky answer of a noisy victim is no success; an exact one is asked once more, and no more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.confirm import agreed, differ, least_hits
from fedzo.attacks.victims.victim import Answers, CallableVictim, Victim, from_scores
from fedzo.attacks.victims.wrappers import (
    LabelOnly,
    NoisyScores,
    OrderOnly,
    QueryLimit,
    RoundedScores,
)
from fedzo.errors import ConfigError, FedzoWarning
from fedzo.randomness import stream
from scenarios.attacks.single_attack import Plan, Report, attack_victim

WEIGHTS = stream(0, "weights").standard_normal((64, 3))
IMAGES = torch.from_numpy(stream(0, "images").random((60, 1, 8, 8))).float()


def logits(images: NDArray[Any]) -> NDArray[np.float64]:
    # row by row: as BLAS does it, an image's scores would depend on how many are asked at once
    return np.array([(row.reshape(-1) - 0.5) @ WEIGHTS for row in images.astype(np.float64)])


LABELS = torch.from_numpy(logits(IMAGES.numpy()).argmax(1))


def probabilities(images: NDArray[Any]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(logits(images))
    return powers / powers.sum(1, keepdims=True)


def noisy(function: Any = logits, tells: Any = "logits", std: float = 2.0) -> Victim:
    return NoisyScores(CallableVictim(function, tells), std, generator=stream(1, "noise"))


def attacked(
    victim: Victim, attacker: str, *, target: int | None = None, num_images: int = 3, **more: Any
) -> Report:
    settings = AttackSettings(**{"radius": 1e-4, "query_budget": 40, **more})
    plan = Plan(num_images=num_images, attacker=attacker, target=target, settings=settings)
    return attack_victim(victim, IMAGES, LABELS, plan)


def balanced(report: Report) -> bool:
    summary = report.summary()
    spent = int(summary["screening_queries"]) + int(summary["queries"])
    return spent == int(summary["victim_queries"]) + int(summary["replayed"])


@pytest.mark.parametrize("attacker", ["square", "thompson", "nes", "edge", "hopskipjump"])
@pytest.mark.filterwarnings("ignore::fedzo.errors.FedzoWarning")
def test_noise_alone_is_no_success(attacker: str) -> None:
    victim = LabelOnly(noisy()) if attacker in ("edge", "hopskipjump") else noisy()
    report = attacked(victim, attacker)
    assert report.summary()["success_rate"] == 0
    assert max(found.queries for found in report.found) <= 40
    assert balanced(report)


@pytest.mark.parametrize("levels", [0, 3000])
@pytest.mark.filterwarnings("ignore::fedzo.errors.FedzoWarning")
def test_nor_is_it_on_levels_where_answers_are_remembered(levels: int) -> None:
    images = (IMAGES * 3000).round() / 3000
    settings = AttackSettings(radius=1 / 3000, query_budget=40, levels=levels)
    plan = Plan(num_images=3, attacker="square", settings=settings)
    report = attack_victim(noisy(), images, LABELS, plan)
    assert report.summary()["success_rate"] == 0
    assert report.summary()["noisy"] is True
    assert balanced(report)


@pytest.mark.parametrize(
    ("more", "target"), [({}, 1), ({"universal": True}, None), ({"loss": "boundary"}, None)]
)
@pytest.mark.filterwarnings("ignore::fedzo.errors.FedzoWarning")
def test_nor_is_it_with_targets_or_for_all_images(more: dict[str, Any], target: Any) -> None:
    report = attacked(noisy(std=1.0), "square", target=target, **more)
    assert report.summary()["success_rate"] == 0
    assert balanced(report)


def test_a_noisy_victim_is_told_and_can_still_be_fooled() -> None:
    with pytest.warns(FedzoWarning, match="differently each time"):
        report = attacked(noisy(std=0.3), "square", radius=0.3, query_budget=200, num_images=6)
    summary = report.summary()
    assert (summary["noisy"], summary["confirm"]) == (True, 9)
    assert summary["success_rate"] >= 0.8
    after = report.images + torch.stack([found.delta.reshape(1, 8, 8) for found in report.found])
    wrong = torch.from_numpy(logits(after.clamp(0, 1).numpy()).argmax(1)) != report.labels
    assert all(bool(wrong[i]) for i, found in enumerate(report.found) if found.success)


def test_a_random_function_is_seen_to_be_noisy() -> None:
    generator = stream(3, "noise")

    def drawn(images: NDArray[Any]) -> NDArray[np.float64]:
        return probabilities(images) * generator.uniform(0.5, 1.0, (len(images), 1))

    with pytest.warns(FedzoWarning, match="differently"):
        report = attacked(CallableVictim(drawn, "probabilities"), "square", radius=0.2)
    assert report.summary()["noisy"] is True


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: RoundedScores(v, 2)])
def test_an_exact_victim_of_scores_is_asked_once_more_at_every_success(wrap: Any) -> None:
    report = attacked(wrap(CallableVictim(logits)), "square", radius=0.2)
    summary = report.summary()
    assert summary["success_rate"] == 1  # of three images
    assert (summary["noisy"], summary["confirm"]) == (False, 1)
    assert summary["screening_queries"] == report.screening_queries + 3
    assert balanced(report)


def test_labels_are_asked_five_times_more_at_every_success() -> None:
    report = attacked(LabelOnly(CallableVictim(logits)), "edge", radius=0.2, query_budget=300)
    hits = sum(found.success for found in report.found)
    assert hits > 0
    assert report.summary()["screening_queries"] == report.screening_queries + 5 * hits
    assert report.summary()["noisy"] is None


def test_confirm_asks_any_victim_so_often() -> None:
    report = attacked(CallableVictim(logits), "square", radius=0.2, confirm=5)
    assert report.summary()["confirm"] == 5
    plain = attacked(CallableVictim(logits), "square", radius=0.2)
    more = [a.queries - b.queries for a, b in zip(report.found, plain.found, strict=True)]
    assert more == [9] * 3  # five about the image as it was, four more about the success
    assert balanced(report)
    with pytest.raises(ConfigError, match="confirm"):
        AttackSettings(confirm=-1)


@pytest.mark.filterwarnings("ignore::fedzo.errors.FedzoWarning")
def test_orders_of_a_noisy_victim_are_judged_more_than_once() -> None:
    report = attacked(OrderOnly(noisy(std=1.0)), "rank")
    assert report.summary()["success_rate"] == 0
    assert report.summary()["noisy"] is True


def test_a_universal_attack_by_order_is_judged_on_all_images() -> None:
    for seed in range(3):
        settings = {"norm": "l0", "radius": 9, "query_budget": 90, "universal": True, "seed": seed}
        settings["num_images"] = 6
        with pytest.warns(FedzoWarning, match="covers 15 proposals"):
            report = attacked(OrderOnly(CallableVictim(logits)), "rank", **settings)
        [found] = report.found
        after = (report.images + found.delta.reshape(1, 1, 8, 8)).clamp(0, 1)
        wrong = logits(after.numpy()).argmax(1) != report.labels.numpy()
        assert found.success == (wrong.mean() >= 0.5)


def test_confirmations_lie_in_the_journal(tmp_path: Path) -> None:
    plan = Plan(
        num_images=3, attacker="square", settings=AttackSettings(radius=0.2, query_budget=60)
    )
    reports = [
        attack_victim(CallableVictim(logits), IMAGES, LABELS, plan, journal=tmp_path / "answers")
        for _ in range(2)
    ]
    first, second = (report.summary() for report in reports)
    assert second["victim_queries"] == 0
    assert second["replayed"] == first["victim_queries"]
    assert second["screening_queries"] == first["screening_queries"]


@pytest.mark.parametrize(("answers", "least"), [(1, 1), (3, 3), (5, 5), (9, 8), (15, 12)])
def test_so_many_must_agree(answers: int, least: int) -> None:
    assert least_hits(answers) == least


def test_no_more_is_asked_than_settles_it() -> None:
    asked: list[int] = []

    def hit(number: int) -> bool:
        asked.append(number)
        return False

    assert not agreed((hit(i) for i in range(8)), 9)
    assert len(asked) == 2


def test_rounding_is_no_noise() -> None:
    a = from_scores(torch.tensor([[1.0, 2.0, torch.nan]]))
    assert a.scores is not None
    assert not differ(a, from_scores(a.scores + 1e-5))
    assert differ(a, from_scores(a.scores + torch.tensor([[0.1, 0.0, 0.0]])))
    refused = Answers(torch.tensor([-1]), None, torch.tensor([False]))
    assert not differ(a, refused)


def cells(images: NDArray[Any]) -> NDArray[np.float64]:
    centers = stream(0, "centers").random((10, 64))
    flat = images.astype(np.float64).reshape(len(images), -1)
    return -((flat[:, None] - centers) ** 2).sum(2)


def near_cells(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    centers = stream(0, "centers").random((10, 64))
    noise = 0.05 * stream(0, "cells").standard_normal((10 * count, 64))
    images = (np.repeat(centers, count, axis=0) + noise).clip(0, 1).reshape(-1, 1, 8, 8)
    return torch.from_numpy(images).float(), torch.arange(10).repeat_interleave(count)


@pytest.mark.parametrize("attacker", ["hopskipjump", "edge"])
def test_targeted_attacks_by_labels_begin_at_images_of_the_target(attacker: str) -> None:
    images, labels = near_cells(3)
    target = int(cells(np.full((1, 1, 8, 8), 0.5)).argmin(1)[0])
    settings = AttackSettings(norm="l2", radius=1.8, query_budget=400)
    plan = Plan(num_images=2, attacker=attacker, target=target, settings=settings)
    report = attack_victim(LabelOnly(CallableVictim(cells)), images, labels, plan)
    assert all(not found.reason for found in report.found)
    assert all(found.success or found.queries == 400 for found in report.found)


@pytest.mark.parametrize("attacker", ["hopskipjump", "edge", "square"])
def test_an_attack_that_has_nothing_to_begin_with_says_so(attacker: str) -> None:
    images, labels = near_cells(3)
    target = int(cells(np.full((1, 1, 8, 8), 0.5)).argmin(1)[0])
    others = labels != target
    loss: Any = "boundary" if attacker == "square" else "margin"
    settings = AttackSettings(norm="l2", radius=0.1, query_budget=150, loss=loss)
    plan = Plan(num_images=2, attacker=attacker, target=target, settings=settings)
    with pytest.warns(FedzoWarning, match="of 2 attacks are no evidence of robustness"):
        report = attack_victim(
            LabelOnly(CallableVictim(cells)), images[others], labels[others], plan
        )
    assert any(f"as class {target}" in one["reason"] for one in report.to_json()["each"])


class Garbling:
    """Logits of which every so often an answer is another image's."""

    tells = "logits"

    def __init__(self, share: float, seed: int) -> None:
        self._share, self._random = share, np.random.default_rng(seed)

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float64]:
        told = logits(images)
        garbled = self._random.random(len(images)) < self._share
        told[garbled] = self._random.normal(size=(int(garbled.sum()), 3))
        return told


@pytest.mark.more
@pytest.mark.parametrize("radius", [1e-4, 0.03, 0.06])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.filterwarnings("ignore::fedzo.errors.FedzoWarning")
def test_answers_that_are_wrong_now_and_then_fool_nobody(share: float, radius: float) -> None:
    """Though some images are fooled in truth, so that the first success may be one."""
    false = 0
    for seed in range(4):
        victim = CallableVictim(Garbling(share, seed))
        report = attacked(victim, "square", num_images=12, query_budget=150, radius=radius)
        told = torch.from_numpy(logits(report.adversarials.numpy()).argmax(1))
        hits = torch.tensor([found.success for found in report.found])
        false += int((hits & (told == report.labels)).sum())
        assert balanced(report)
    assert false <= 1, "of 48 images"


@pytest.mark.parametrize("limit", [55, 70, 200])
def test_a_victim_that_refuses_the_last_answers_takes_no_success_back(limit: int) -> None:
    victim = QueryLimit(CallableVictim(logits), limit)
    report = attacked(victim, "square", radius=0.2, confirm=5, query_budget=60)
    exact = torch.from_numpy(logits(report.adversarials.numpy()).argmax(1)) != report.labels
    settled = [found.success for found in report.found]
    if limit == 200:
        assert all(settled)
    assert settled[0], "there was room for it"
    assert all(bool(e) for e, s in zip(exact, settled, strict=True) if s)

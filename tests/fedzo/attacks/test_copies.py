"""Answers that are averaged, and proposals under noise: what counts, and what a success is."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.copies import averaged, blinded
from fedzo.attacks.goal import margin
from fedzo.attacks.resuming import ask_again
from fedzo.attacks.victims.detector import DuplicateDetector
from fedzo.attacks.victims.memory import Remembered
from fedzo.attacks.victims.showing import Jpeg, fewer_bits
from fedzo.attacks.victims.victim import (
    UNKNOWN,
    Answers,
    CallableVictim,
    Victim,
    from_labels,
    from_scores,
)
from fedzo.attacks.victims.wrappers import (
    LabelOnly,
    NoisyScores,
    OrderOnly,
    QueryLimit,
)
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.attacks.single_attack import Plan, Report, attack_victim
from scenarios.victims.wrapping import wrapped

WEIGHTS = stream(0, "weights").standard_normal((64, 3))
IMAGES = torch.from_numpy(stream(0, "images").random((60, 1, 8, 8))).float()


def logits(images: NDArray[Any]) -> NDArray[np.float64]:
    return np.array([(row.reshape(-1) - 0.5) @ WEIGHTS for row in images.astype(np.float64)])


LABELS = torch.from_numpy(logits(IMAGES.numpy()).argmax(1))


def attacked(
    victim: Victim,
    attacker: str = "square",
    *,
    journal: Path | None = None,
    num_images: int = 4,
    **more: Any,
) -> Report:
    settings = AttackSettings(**{"radius": 0.2, "query_budget": 300, **more})
    plan = Plan(num_images=num_images, attacker=attacker, settings=settings)
    return attack_victim(victim, IMAGES, LABELS, plan, journal=journal)


def test_answers_are_averaged_without_those_that_were_refused() -> None:
    first = from_scores(torch.tensor([[1.0, 2.0], [0.0, 4.0], [5.0, 0.0]]))
    refused = torch.tensor([True, False, False])
    scores = torch.tensor([[4.0, 1.0], [torch.nan] * 2, [torch.nan] * 2])
    second = Answers(torch.tensor([0, UNKNOWN, UNKNOWN]), scores, refused)
    together = averaged([first, second])
    assert together.labels.tolist() == [0, 1, 0]
    assert together.scores is not None
    assert together.scores.tolist() == [[2.5, 1.5], [0.0, 4.0], [5.0, 0.0]]
    none = averaged([second, second])
    assert none.labels.tolist() == [0, UNKNOWN, UNKNOWN]
    assert none.answered.tolist() == [True, False, False]


def test_of_labels_the_most_frequent_counts() -> None:
    told = [from_labels(torch.tensor(labels)) for labels in ([2, 0], [1, 1], [2, 1])]
    assert averaged(told).labels.tolist() == [2, 1]


def test_a_score_that_is_not_told_is_low_and_no_vote() -> None:
    """One lucky copy that told another class does not outvote nine."""
    told = [from_scores(torch.tensor([[torch.nan, 4.8, torch.nan]])) for _ in range(9)]
    together = averaged([*told, from_scores(torch.tensor([[5.0, torch.nan, torch.nan]]))])
    assert together.labels.tolist() == [1]


def test_copies_of_labels_may_all_be_refused() -> None:
    victim = QueryLimit(LabelOnly(CallableVictim(logits)), 30)
    report = attacked(victim, "hopskipjump", expect=2, query_budget=50)
    assert sum(found.queries for found in report.found) <= 30
    assert sum(found.refused for found in report.found) > 0


def test_a_success_ends_an_attack_whatever_its_loss() -> None:
    """Losses of universal attacks are never below 0, nor is a targeted cross-entropy of p < 1/2."""
    many = attacked(CallableVictim(logits), universal=True, query_budget=800)
    assert many.success_rate == 1
    assert many.found[0].queries < 100
    assert many.found[0].loss > 0

    def flat(images: NDArray[Any]) -> NDArray[np.float64]:
        return 0.01 * logits(images)

    settings = AttackSettings(radius=0.2, query_budget=300, loss="cross_entropy")
    plan = Plan(num_images=4, attacker="square", settings=settings, target=1)
    report = attack_victim(CallableVictim(flat), IMAGES, LABELS, plan)
    hits = [found for found in report.found if found.success]
    assert hits
    assert all(found.loss > 0 and found.queries < 300 for found in hits)


def test_noise_stays_in_the_range_of_pixels_and_none_draws_nothing() -> None:
    generator = stream(1, "blind")
    assert blinded(IMAGES, 0.0, generator=generator) is IMAGES
    under = blinded(IMAGES, 0.5, generator=generator)
    assert float(under.min()) >= 0
    assert float(under.max()) <= 1
    assert float(generator.random()) != float(stream(1, "blind").random())


@pytest.mark.parametrize("expect", [1, 25])
def test_the_loss_of_a_proposal_is_the_mean_over_its_copies(expect: int) -> None:
    victim = NoisyScores(CallableVictim(logits), 2.0, generator=stream(2, "noise"))
    report = attacked(victim, radius=1e-4, query_budget=4 * expect, expect=expect, confirm=1)
    margins = logits(report.images.numpy())
    margins.sort(axis=1)
    errors = [found.loss - m for found, m in zip(report.found, margins @ [0, -1, 1], strict=True)]
    spread = 2.0 * (2 / expect) ** 0.5
    assert 0.2 * spread < float(np.abs(errors).max()) < 4 * spread
    failed = [found.queries for found in report.found if not found.success]
    assert failed == [4 * expect] * len(failed) != []
    summary = report.summary()
    spent = summary["screening_queries"] + summary["queries"]
    assert spent == summary["victim_queries"]


def test_every_copy_counts_and_the_budget_covers_all() -> None:
    plain, twice = attacked(CallableVictim(logits)), attacked(CallableVictim(logits), expect=2)
    pairs = zip(plain.found, twice.found, strict=True)
    assert all(b.success and b.queries % 2 == 0 for a, b in pairs if a.queries <= 75)
    short = attacked(CallableVictim(logits), radius=1e-4, expect=7, query_budget=50)
    assert [found.queries for found in short.found] == [49] * 4
    with pytest.raises(ConfigError, match="below one proposal"):
        attacked(CallableVictim(logits), expect=7, query_budget=6)


@pytest.mark.more
@pytest.mark.parametrize(
    "attacker", ["square", pytest.param("hopskipjump", marks=pytest.mark.slow)]
)
def test_noise_hides_an_attack_from_a_detector(attacker: str, tmp_path: Path) -> None:
    def watched() -> Victim:
        inside: Victim = CallableVictim(logits)
        by_labels = attacker == "hopskipjump"
        return DuplicateDetector(LabelOnly(inside) if by_labels else inside, distance=0.1)

    settings: dict[str, Any] = {"radius": 0.1, "query_budget": 300, "num_images": 6}
    seen = attacked(watched(), attacker, **settings)
    hidden = attacked(watched(), attacker, blind=0.1, journal=tmp_path / "j", **settings)
    assert 4 * sum(f.refused for f in hidden.found) < sum(f.refused for f in seen.found)
    assert attacker == "square" or hidden.success_rate > seen.success_rate
    assert hidden.success_rate > 0
    for found in hidden.found:
        after = (hidden.images[found.index] + found.delta.reshape(1, 8, 8)).clamp(0, 1)
        said = int(logits(after.numpy()[None]).argmax(1)[0])
        assert not found.success or said == found.label != int(hidden.labels[found.index])
        assert not found.reason
    again = attacked(watched(), attacker, blind=0.1, journal=tmp_path / "j", **settings)
    assert [f.queries for f in again.found] == [f.queries for f in hidden.found]
    assert again.summary()["victim_queries"] == 0


def test_an_order_cannot_be_averaged() -> None:
    for more in ({"expect": 2}, {"blind": 0.1}):
        with pytest.raises(ConfigError, match="tells an order"):
            attacked(OrderOnly(CallableVictim(logits)), "rank", **more)
    with pytest.raises(ConfigError, match="blind"):
        AttackSettings(blind=-0.1)


def test_images_are_squeezed() -> None:
    seen: list[torch.Tensor] = []

    def look(images: NDArray[Any]) -> NDArray[np.float64]:
        seen.append(torch.from_numpy(images))
        return np.ones((len(images), 2))

    image = torch.tensor([[[[0.0, 0.3], [0.6, 1.0]]]])
    fewer_bits(CallableVictim(look), 1).ask(image)
    assert seen[-1].flatten().tolist() == [0, 0, 1, 1]
    smooth = torch.linspace(0, 1, 16 * 16).reshape(1, 1, 16, 16)
    for images in (smooth, smooth.expand(1, 3, 16, 16)):
        wrapped(CallableVictim(look), ["jpeg=30"], 0).ask(images)
        file = io.BytesIO()
        shown = (images[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(shown.squeeze()).save(file, format="JPEG", quality=30)
        left = torch.from_numpy(np.array(Image.open(file))).reshape(16, 16, -1).permute(2, 0, 1)
        torch.testing.assert_close(seen[-1][0], left / 255)
        assert 0 < float((seen[-1] - images).abs().mean()) < 0.05


def test_squeezing_that_is_none_is_refused() -> None:
    for wrong in ("jpeg=0", "bits=0", "bits=17", "jpeg=96"):
        with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
            wrapped(CallableVictim(logits), [wrong], 0)
    seen = NoisyScores(CallableVictim(logits), 1.0, generator=stream(0, "noise"))
    jpeg = Jpeg(Remembered(seen), 50)
    first, second = (ask_again(jpeg, IMAGES[:2], number) for number in (1, 2))
    assert first.scores is not None
    assert second.scores is not None
    assert not torch.equal(first.scores, second.scores)
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        Jpeg(CallableVictim(logits), 50).ask(torch.zeros(1, 2, 8, 8))


@pytest.mark.more
def test_a_confident_success_lies_deeper_and_an_unconfident_one_counts() -> None:
    plain = attacked(CallableVictim(logits))
    deeper = attacked(CallableVictim(logits), confidence=3.0)
    assert all(found.loss <= -3.0 for found in deeper.found)
    assert all(a.queries <= b.queries for a, b in zip(plain.found, deeper.found, strict=True))
    assert max(found.loss for found in plain.found) > -3.0
    never = attacked(CallableVictim(logits), confidence=1e6)
    assert never.success_rate == 1
    assert all(found.queries == 300 or found.loss < -3.0 for found in never.found)
    assert all(a.loss <= b.loss for a, b in zip(never.found, deeper.found, strict=True))
    hidden = attacked(CallableVictim(logits), confidence=1.0, blind=0.2, query_budget=300)
    for found in hidden.found:
        after = (hidden.images[found.index] + found.delta.reshape(1, 8, 8)).clamp(0, 1)
        scores = torch.from_numpy(logits(after.numpy()[None]))
        plain = float(margin(scores, int(hidden.labels[found.index]))[0])
        assert not found.success or found.loss == pytest.approx(plain, abs=1e-4)
    with pytest.raises(ConfigError, match="one image's loss"):
        attacked(CallableVictim(logits), confidence=1.0, universal=True, query_budget=800)
    with pytest.raises(ConfigError, match="sees none"):
        attacked(LabelOnly(CallableVictim(logits)), "edge", confidence=1.0)

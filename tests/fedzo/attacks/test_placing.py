"""Patches that are to work wherever they are put."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from fedzo.attacks.attack import AttackSettings, attack
from fedzo.attacks.placing import Places, drawn_places, region_of
from fedzo.attacks.subject import perturbed
from fedzo.attacks.victims.victim import UNKNOWN, AnswerKind, Answers, CallableVictim, Victim
from fedzo.attacks.victims.wrappers import LabelOnly, Meter, NoisyScores, OrderOnly, QueryLimit
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.attacks.attackers import make_attacker
from scenarios.attacks.single_attack import Plan, attack_victim
from scenarios.cli.app import app

SIDE = 12


def bright() -> CallableVictim:
    """Class 1 where an image's mean is above 0.35, so that a white patch works anywhere."""

    def scores(images: NDArray[np.float32]) -> NDArray[np.float64]:
        mean = images.astype(np.float64).reshape(len(images), -1).mean(axis=1)
        return np.stack([np.zeros(len(images)), 20 * (mean - 0.35)], axis=1)

    return CallableVictim(scores)


def pictures(count: int = 3) -> torch.Tensor:
    drawn = stream(0, "pictures").random((count, 3, SIDE, SIDE), dtype=np.float32)
    return torch.from_numpy((drawn * 100).round() / 255)


def settings_for(**given: int | float | bool | str) -> AttackSettings:
    values = {"norm": "patch", "radius": 8, "placements": 4, "query_budget": 400, **given}
    return AttackSettings(**values)  # type: ignore[arg-type]


def labels_of(victim: Victim, images: torch.Tensor) -> torch.Tensor:
    return victim.ask(images).labels


def test_patches_are_pasted_at_their_places() -> None:
    images = pictures(2)
    places = Places(torch.tensor([[0, 1], [5, 9]]), 3, 0.5)
    changes = torch.stack([torch.full((27,), 0.5), torch.full((27,), -0.5)])
    shown = places.pasted(images, changes)
    assert shown.shape == (4, 3, SIDE, SIDE)
    for q, value in enumerate((1.0, 0.0)):
        for k, (top, left) in enumerate(((0, 1), (5, 9))):
            expected = images[k].clone()
            expected[:, top : top + 3, left : left + 3] = value
            assert torch.equal(shown[2 * q + k], expected)


@pytest.mark.parametrize("levels", [0, 255])
def test_a_patch_may_have_any_values(levels: int) -> None:
    settings = settings_for(levels=levels)
    region = region_of(pictures(1), settings)
    assert region.dim == 3 * 8 * 8
    places, others = drawn_places((3, SIDE, SIDE), settings, generator=stream(0, "places"))
    for end in (-1.0, 1.0):
        corner = region.toward(torch.full((region.dim,), -end))
        told = places.contents(corner.unsqueeze(0), 3)
        assert torch.allclose(told, torch.full_like(told, (end + 1) / 2), atol=1e-6)
    both = torch.cat([places.corners, others.corners])
    assert int(both.max()) <= SIDE - 8
    assert len({tuple(corner) for corner in both.tolist()}) == 8


@pytest.mark.parametrize("name", ["thompson", "square", "nes"])
def test_a_success_works_at_its_places_and_is_counted(name: str) -> None:
    images = pictures()
    meter = Meter(bright())
    labels = labels_of(bright(), images)
    assert labels.tolist() == [0, 0, 0]
    settings = settings_for(levels=255)
    attacker = make_attacker(name, "logits", {})
    found = attack(meter, images, labels, attacker, settings)
    assert meter.queries == sum(one.queries + one.checks for one in found)
    assert all(one.queries <= 400 and one.queries % 4 == 0 for one in found)
    assert any(one.success for one in found)
    for one, image in zip(found, images, strict=True):
        assert one.patch is not None
        moved = image + one.delta.reshape(image.shape)
        changed = one.delta.reshape(image.shape).ne(0).any(dim=0).nonzero()
        assert int((changed.amax(0) - changed.amin(0)).max()) + 1 <= 8
        steps = moved * 255
        assert float((steps - steps.round()).abs().max()) < 1e-3
        if one.success:
            assert labels_of(bright(), moved[None]).tolist() == [one.label] == [1]
            assert one.placed is not None
            corners = torch.cartesian_prod(torch.arange(5), torch.arange(5))
            everywhere = Places(corners, 8, 128 / 255)
            change = (one.patch - 128 / 255).reshape(1, -1)
            told = labels_of(bright(), everywhere.pasted(image.expand(25, -1, -1, -1), change))
            assert one.placed in {0.0, 0.25, 0.5, 0.75, 1.0}
            assert (one.placed > 0) <= (told.sum() > 0)
            assert (one.placed < 1) <= (told.sum() < 25)
        else:
            assert one.placed is None


def test_the_same_seed_gives_the_same_patch() -> None:
    images, attacker = pictures(2), make_attacker("square", "logits", {})
    one, other, apart = (
        attack(bright(), images, torch.zeros(2, dtype=torch.int64), attacker, settings_for(seed=s))
        for s in (3, 3, 4)
    )
    assert torch.equal(one[1].delta, other[1].delta)
    assert not torch.equal(one[1].delta, apart[1].delta)


def test_by_labels_the_share_of_places_is_the_loss() -> None:
    images, victim = pictures(2), LabelOnly(bright())
    attacker = make_attacker("edge", "labels", {})
    labels = torch.zeros(2, dtype=torch.int64)
    found = attack(victim, images, labels, attacker, settings_for(levels=255))
    for one, image in zip(found, images, strict=True):
        if one.success:
            moved = image + one.delta.reshape(image.shape)
            assert labels_of(victim, moved[None]).tolist() == [1]
        assert one.approach == ()


def test_noise_that_errs_by_itself_is_no_success() -> None:
    images = pictures(1)
    noisy = NoisyScores(bright(), 50.0, generator=stream(0, "noise"))
    attacker = make_attacker("square", "logits", {})
    [one] = attack(
        noisy, images, torch.zeros(1, dtype=torch.int64), attacker, settings_for(confirm=9)
    )
    assert not one.success


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="norm=patch"):
        AttackSettings(placements=3)
    with pytest.raises(ConfigError, match="universal"):
        settings_for(universal=True)
    zero, one = torch.zeros(1, dtype=torch.int64), pictures(1)
    attacker = make_attacker("square", "logits", {})
    with pytest.raises(ConfigError, match="below one proposal, which takes 4"):
        attack(bright(), one, zero, attacker, settings_for(query_budget=3))
    rank = make_attacker("rank", "order", {})
    with pytest.raises(ConfigError, match="order"):
        attack(OrderOnly(bright()), one, zero, rank, settings_for())
    with pytest.raises(ConfigError, match="placements=4 has one of many"):
        attack(bright(), one, zero, attacker, settings_for(confidence=1.0))
    with pytest.raises(ConfigError, match="outside a ball"):
        attack(bright(), one, zero, attacker, settings_for(loss="boundary"))
    with pytest.raises(ConfigError, match="has 4 places in an image of 12 x 12"):
        attack(bright(), one, zero, attacker, settings_for(radius=11, placements=5))
    with pytest.raises(ConfigError, match="pixels from 1 to 12"):
        attack(bright(), one, zero, attacker, settings_for(radius=13))


def test_the_report_tells_how_it_works_elsewhere() -> None:
    images = pictures()
    meter = Meter(bright())
    crowded = Plan(num_images=2, settings=settings_for(radius=11, placements=5))
    with pytest.raises(ConfigError, match="has 4 places"):
        attack_victim(meter, images, torch.zeros(3, dtype=torch.int64), crowded)
    assert meter.queries == 0
    plan = Plan(num_images=2, settings=settings_for(), all_right=True)
    report = attack_victim(bright(), images, torch.zeros(3, dtype=torch.int64), plan)
    assert report.attacker == "thompson"
    told = report.to_json()
    assert told["placements"] == 4
    assert told["placed"] == report.placed
    assert {one["placed"] for one in told["each"]} - {None}
    checks = sum(found.checks for found in report.found)
    assert told["screening_queries"] == report.screening_queries + checks


def test_refusals_elsewhere_are_told_apart_and_no_failures() -> None:
    images, attacker = pictures(1), make_attacker("thompson", "logits", {})
    labels, settings = torch.zeros(1, dtype=torch.int64), settings_for()
    [plain] = attack(bright(), images, labels, attacker, settings)
    assert plain.success
    spent = plain.queries + plain.checks - 4
    for left in (0, 2):
        meter = Meter(QueryLimit(bright(), spent + left))
        [one] = attack(meter, images, labels, attacker, settings)
        assert (one.success, one.refused) == (True, 4 - left)
        assert (one.placed is None) == (left == 0)
        assert meter.queries == one.queries + one.checks


def test_where_an_image_has_no_other_places_nothing_is_asked_there() -> None:
    settings = settings_for(radius=12, placements=1)
    attacker = make_attacker("thompson", "logits", {})
    [one] = attack(bright(), pictures(1), torch.zeros(1, dtype=torch.int64), attacker, settings)
    assert (one.success, one.placed) == (True, None)


def test_by_labels_a_target_and_a_reason() -> None:
    images, victim = pictures(2), LabelOnly(bright())
    attacker, zero = make_attacker("edge", "labels", {}), torch.zeros(2, dtype=torch.int64)
    found = attack(
        victim,
        images,
        zero,
        attacker,
        settings_for(placements=1, query_budget=20),
        targets=zero + 1,
        starts=torch.ones(1, 3, SIDE, SIDE),
    )
    assert all(one.queries <= 20 for one in found)
    hard = settings_for(placements=16, radius=9, query_budget=160, universal_rate=1.0)
    for one in attack(victim, images, zero, attacker, hard):
        assert one.success or not one.reason or one.label == 0


class Refusing:
    """A victim that gives no answer about every third image of a request."""

    tells: AnswerKind = "logits"

    def __init__(self) -> None:
        self._inner = bright()

    def ask(self, images: torch.Tensor) -> Answers:
        told = self._inner.ask(images)
        refused = images[:, 0, 0, 0] * 255 % 3 < 1
        assert told.scores is not None
        scores = told.scores.masked_fill(refused.unsqueeze(1), torch.nan)
        return Answers(told.labels.masked_fill(refused, UNKNOWN), scores, ~refused)


def test_a_patch_that_works_is_saved_where_some_places_were_refused() -> None:
    images, victim = pictures(6), Refusing()
    attacker = make_attacker("square", "logits", {})
    zero = torch.zeros(6, dtype=torch.int64)
    found = attack(victim, images, zero, attacker, settings_for(placements=6, universal_rate=0.3))
    assert any(one.success for one in found)
    for one, image in zip(found, images, strict=True):
        if one.success:
            assert one.delta.any()
            shown = perturbed(image.unsqueeze(0), one.delta.unsqueeze(0))
            assert int(bright().ask(shown).labels) == 1


def test_a_universal_attack_tells_the_share_that_it_fools() -> None:
    images = torch.stack([torch.full((3, 8, 8), v) for v in (0.1, 0.32, 0.33, 0.34)])
    settings = AttackSettings(universal=True, radius=0.1, query_budget=400)
    plan = Plan(num_images=4, attacker="square", settings=settings)
    report = attack_victim(bright(), images, torch.zeros(4, dtype=torch.int64), plan)
    fooled = float((bright().ask(report.adversarials).labels == 1).double().mean())
    assert 0.5 <= fooled < 1
    assert (report.success_rate, report.fooled) == (1.0, fooled)
    assert report.robust_accuracy == pytest.approx(1 - fooled)
    assert f"square: {fooled:.0%} of 4 images" in str(report)


def test_the_share_of_a_universal_attack_may_be_given() -> None:
    settings = AttackSettings(universal=True, universal_rate=0.9, radius=0.3, query_budget=60)
    plan = Plan(num_images=3, attacker="square", settings=settings)
    report = attack_victim(bright(), pictures(), torch.zeros(3, dtype=torch.int64), plan)
    assert report.found[0].queries <= 60


def test_from_the_command_line(tmp_path: Path) -> None:
    words = "attack mnist --norm patch --radius 8 --placements 3 --images 2 --query-budget 60"
    result = CliRunner().invoke(app, [*words.split(), "--out", str(tmp_path / "out"), "--png"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "figure.png").exists()
    assert len(list((tmp_path / "out" / "png").iterdir())) == 6


def test_a_table_tells_how_patches_work_elsewhere() -> None:
    words = "attack mnist --norm patch --radius 4,14 --placements 2 --images 1 --query-budget 30"
    result = CliRunner().invoke(app, words.split(), env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "elsewhere" in result.output
    plain = "attack mnist --radius 0.1,0.3 --images 1 --query-budget 5"
    assert "elsewhere" not in CliRunner().invoke(app, plain.split()).output

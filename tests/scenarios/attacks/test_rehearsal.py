"""What cannot begin is said before anything is spent, and screening has an end."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedzo.attacks.attack import AttackSettings, attack
from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.victims.victim import CallableVictim
from fedzo.attacks.victims.wrappers import LabelOnly, Meter, OrderOnly
from fedzo.errors import ConfigError, FedzoWarning
from fedzo.randomness import stream
from scenarios.attacks.attackers import ATTACKERS, make_attacker
from scenarios.attacks.single_attack import Plan, attack_victim

WEIGHTS = stream(0, "weights").standard_normal((144, 2))
IMAGES = torch.from_numpy(stream(0, "images").random((6, 1, 12, 12))).float()


def scores(images: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.array([(row.reshape(-1) - 0.5) @ WEIGHTS for row in images.astype(np.float64)])


LABELS = torch.from_numpy(scores(IMAGES.numpy()).argmax(1))


def spent(attacker: str, settings: dict[str, Any], **more: Any) -> tuple[int, str]:
    """Return how many queries an attack has cost, and why it was refused."""
    inside = CallableVictim(scores)
    victim = {"edge": LabelOnly, "hopskipjump": LabelOnly, "rank": OrderOnly}.get(attacker)
    meter = Meter(victim(inside) if victim else inside)
    plan = Plan(
        num_images=2,
        attacker=attacker,
        attacker_settings=settings,
        settings=AttackSettings(**{"radius": 0.01, **more}),
    )
    try:
        attack_victim(meter, IMAGES, LABELS, plan)
    except ConfigError as error:
        return meter.queries, str(error)
    return meter.queries, ""


@pytest.mark.parametrize(
    ("attacker", "settings", "least"),
    [
        ("zo", {"estimator": "coordinate"}, 289),
        ("zo", {}, 12),
        ("zo", {"estimator": "residual"}, 21),
        ("nes", {}, 21),
        ("nes", {"num_directions": 3}, 7),
        ("fzoos", {}, 7),
        ("thompson", {}, 2),
        ("simba", {}, 2),
    ],
)
def test_a_budget_below_one_step_is_said_first(
    attacker: str, settings: dict[str, Any], least: int
) -> None:
    queries, sentence = spent(attacker, settings, query_budget=least - 1)
    assert queries == 0
    assert f"covers {least - 1} proposals" in sentence
    assert f"takes {least}," in sentence
    assert spent(attacker, settings, query_budget=least)[1] == ""


def test_a_shared_budget_counts_for_each_image() -> None:
    assert "covers 20 proposals" in spent("nes", {}, query_budget=41, universal=True)[1]
    assert "takes 2 queries: 2 images" in spent("square", {}, query_budget=1, universal=True)[1]
    assert spent("nes", {}, query_budget=42, universal=True)[1] == ""


def test_candidates_of_an_order_are_attempts_below_one_step_too() -> None:
    with pytest.warns(FedzoWarning, match="takes 21,"):
        assert spent("rank", {}, query_budget=20)[1] == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spent("rank", {}, query_budget=21)[1] == ""


def test_few_coordinates_need_fewer_queries() -> None:
    waves = Coordinates("waves", 2)
    settings = {"estimator": "coordinate"}
    assert spent("zo", settings, query_budget=9, coordinates=waves)[1] == ""
    assert "takes 9," in spent("zo", settings, query_budget=8, coordinates=waves)[1]


def test_distances_of_the_boundary_cost_more() -> None:
    assert "takes 49," in spent("nes", {}, query_budget=48, loss="boundary")[1]
    assert spent("nes", {}, query_budget=49, loss="boundary")[1] == ""


@pytest.mark.parametrize("attacker", ["edge", "hopskipjump"])
def test_norms_that_an_attacker_does_not_know_cost_nothing(attacker: str) -> None:
    queries, sentence = spent(attacker, {}, norm="l0", radius=3.0)
    assert queries == 0
    assert "knows the norms linf and l2" in sentence


def test_images_off_the_levels_cost_nothing() -> None:
    queries, sentence = spent("square", {}, levels=255)
    assert queries == 0
    assert "no whole steps of 1/255" in sentence


@pytest.mark.more
@pytest.mark.parametrize("name", sorted(set(ATTACKERS) - {"rank"}))
def test_every_attacker_moves_with_its_least_budget_or_is_refused(name: str) -> None:
    """Whatever is not refused changes the image at least once."""
    for budget in (1, 2, 7, 12, 21):
        queries, sentence = spent(name, {}, query_budget=budget)
        assert (queries == 0) == bool(sentence)


def test_an_attack_from_python_says_it_too() -> None:
    attacker = make_attacker("nes", "logits", {})
    settings = AttackSettings(radius=0.01, query_budget=20)
    with pytest.warns(FedzoWarning, match="covers 20 proposals, .* takes 21"):
        attack(CallableVictim(scores), IMAGES[:1], LABELS[:1], attacker, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        more = AttackSettings(radius=0.01, query_budget=21)
        attack(CallableVictim(scores), IMAGES[:1], LABELS[:1], attacker, more)


@pytest.mark.parametrize(
    ("num_images", "budget", "most"),
    [(1, 100, 32), (2, 100, 40), (5, 2, 32), (20, 2, 80), (20, 99, 400)],
)
@pytest.mark.parametrize("universal", [False, True])
def test_screening_ends(num_images: int, budget: int, most: int, universal: bool) -> None:
    meter = Meter(CallableVictim(lambda x: np.tile([1.0, 0.0, 0.0], (len(x), 1))))
    budget = budget * num_images if universal else budget
    plan = Plan(
        num_images=num_images, settings=AttackSettings(query_budget=budget, universal=universal)
    )
    images, labels = torch.rand(900, 1, 3, 3), torch.ones(900, dtype=torch.long)
    with pytest.raises(ConfigError, match=rf"the 0 of \d+ that .*\({900 - most} others were not"):
        attack_victim(meter, images, labels, plan)
    assert meter.queries == most


def test_a_victim_that_is_right_one_time_in_ten_is_screened() -> None:
    labels = torch.arange(900) % 10
    plan = Plan(num_images=4, attacker="square", settings=AttackSettings(query_budget=100))
    report = attack_victim(
        CallableVictim(lambda x: np.tile(np.eye(10)[:1], (len(x), 1))),
        torch.rand(900, 1, 3, 3),
        labels,
        plan,
    )
    assert len(report.found) == 4

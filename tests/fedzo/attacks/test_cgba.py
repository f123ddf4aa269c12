"""CGBA: how near it comes to the plane of a linear victim, where it starts, and what is told."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedzo.attacks.attack import AttackSettings, Found, attack
from fedzo.attacks.attacker import Attacker
from fedzo.attacks.attackers.cgba import Cgba
from fedzo.attacks.attackers.hopskipjump import HopSkipJump
from fedzo.attacks.victims.victim import CallableVictim
from fedzo.attacks.victims.wrappers import LabelOnly
from fedzo.errors import ConfigError

SIDE = 16


def slope(channels: int) -> NDArray[np.float64]:
    """Return the normal of a boundary: a saddle, and a few stripes; green above all."""
    wave = np.cos(math.pi * (np.arange(SIDE) + 0.5) / SIDE)
    plane = wave[:, None] * wave + 0.5 * np.sign(np.sin(np.arange(SIDE)))
    weights = np.array([0.3, 0.9, 0.2])[:channels] if channels == 3 else np.ones(channels)
    whole = weights[:, None, None] * plane
    return whole / np.linalg.norm(whole)


def victim(channels: int, distance: float) -> LabelOnly:
    """Return who answers 1 where the image, grey, has moved so far along the slope."""

    def scores(images: NDArray[np.float32]) -> NDArray[np.float64]:
        moved = ((images - 0.5) * slope(channels)).sum(axis=(1, 2, 3)) - distance
        return np.stack([np.zeros(len(images)), moved], axis=1)

    return LabelOnly(CallableVictim(scores))


def found(
    attacker: Attacker, *, channels: int = 3, budget: int = 600, radius: float = 0.1
) -> Found:
    images = torch.full((1, channels, SIDE, SIDE), 0.5)
    settings = AttackSettings(norm="l2", radius=radius, query_budget=budget, seed=1)
    [one] = attack(victim(channels, 0.5), images, torch.tensor([0]), attacker, settings)
    return one


@pytest.mark.parametrize("channels", [1, 3])
def test_it_comes_near_the_least_distance(channels: int) -> None:
    one = found(Cgba(), channels=channels)
    assert not one.success
    assert 0.5 <= one.nearest < 0.65
    assert one.nearest < found(HopSkipJump(), channels=channels).nearest


def test_what_is_reached_is_told_by_queries() -> None:
    one = found(Cgba())
    queries, sizes = zip(*one.approach, strict=True)
    assert list(queries) == sorted(set(queries))
    assert list(sizes) == sorted(sizes, reverse=True)
    assert queries[-1] <= one.queries
    assert one.nearest == sizes[-1]


def test_a_ball_that_is_reached_ends_it() -> None:
    one = found(Cgba(), radius=0.8)
    assert one.success
    assert float(one.delta.norm()) <= 0.8 + 1e-6
    assert one.nearest <= 0.8 + 1e-6
    assert one.queries < 600


def test_it_goes_on_in_waves_where_stripes_are_used_up() -> None:
    """The saddle is no sum of stripes: with these alone it stays out of reach."""
    alone, both = (found(Cgba(stripes=k), budget=1500).nearest for k in (100.0, 5.0))
    assert both < alone


def test_a_targeted_attack_begins_at_an_image_of_the_target() -> None:
    images = torch.full((1, 3, SIDE, SIDE), 0.5)
    there = (0.5 + 3 * torch.from_numpy(slope(3)).float()).clamp(0, 1).unsqueeze(0)
    settings = AttackSettings(norm="l2", radius=0.1, query_budget=60)
    [one] = attack(
        victim(3, 0.5),
        images,
        torch.tensor([0]),
        Cgba(),
        settings,
        targets=torch.tensor([1]),
        starts=there,
    )
    assert one.approach[0] == (1, pytest.approx(float((there - images).norm())))
    assert one.nearest < 0.5 * one.approach[0][1]


def test_nothing_to_begin_with_is_said() -> None:
    one = [found(Cgba(), budget=300)]
    assert math.isfinite(one[0].nearest)
    images = torch.full((1, 1, SIDE, SIDE), 0.5)
    settings = AttackSettings(norm="l2", radius=0.1, query_budget=300)
    [never] = attack(victim(1, 1e9), images, torch.tensor([0]), Cgba(), settings)
    assert never.nearest == math.inf
    assert never.approach == ()
    assert "no image was answered otherwise" in never.reason


def test_other_norms_are_refused() -> None:
    images = torch.full((1, 1, SIDE, SIDE), 0.5)
    with pytest.raises(ConfigError, match="cgba is for norm l2, not linf"):
        attack(victim(1, 0.5), images, torch.tensor([0]), Cgba(), AttackSettings(radius=0.1))

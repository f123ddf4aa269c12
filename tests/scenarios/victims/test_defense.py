"""ZO-AE-DS: trained through answers alone, counted, kept, and attackable."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedzo.attacks.victims.victim import ModuleVictim
from fedzo.attacks.victims.wrappers import LabelOnly, Meter
from fedzo.errors import ConfigError
from fedzo.estimation.smoothing import Smoothing, certified_accuracy
from fedzo.randomness import stream
from scenarios.data.images import Images, load_images
from scenarios.data.networks import load_parameters, make_pooled_cnn
from scenarios.victims.defense import (
    DefenseConfig,
    load_defense,
    save_defense,
    train_defense,
)
from scenarios.victims.smoothed import SmoothedVictim, certify_images
from scenarios.victims.victims import Training, fit_network

pytestmark = pytest.mark.xdist_group("defense")
"""Its victim is trained once, for all tests of one process."""


@pytest.fixture(scope="module")
def digits() -> tuple[ModuleVictim, Images, Images]:
    train, test = load_images("digits", "", seed=0)
    generator = stream(0, "test victim")
    parameters = fit_network(
        make_pooled_cnn(8, 10), train, Training(6, 64, 3e-3), generator=generator
    )
    return ModuleVictim(load_parameters(make_pooled_cnn(8, 10), parameters)), train, test


Victims = tuple[ModuleVictim, Images, Images]
CONFIG = DefenseConfig(sigma=0.8, latent=12, epochs=1, steps=3, batch_size=8, seed=3)


def test_queries_are_the_victims_own_count(digits: Victims) -> None:
    victim, train, _ = digits
    meter = Meter(victim)
    defense = train_defense(meter, train.pixels.unsqueeze(1), CONFIG)
    per_step = CONFIG.batch_size * (2 * CONFIG.latent + 1)
    answers = meter.queries - CONFIG.steps * per_step
    assert defense.queries == meter.queries
    assert 0 < answers <= CONFIG.steps * CONFIG.batch_size
    assert len(defense.losses) == CONFIG.steps


def test_same_seed_same_defense_and_it_comes_back_from_disk(
    digits: Victims, tmp_path: Path
) -> None:
    victim, train, test = digits
    one, same = (train_defense(victim, train.pixels.unsqueeze(1), CONFIG) for _ in range(2))
    image = test.pixels[:5].unsqueeze(1)
    assert torch.equal(one.purifier(image), same.purifier(image))
    save_defense(tmp_path, one)
    back = load_defense(tmp_path)
    assert torch.equal(back.purifier(image), one.purifier(image))
    assert back.config == CONFIG
    with pytest.raises(ConfigError, match=r"made for images of shape \(1, 8, 8\), and these have"):
        back.purifier(image.expand(-1, 3, -1, -1))
    with pytest.raises(ConfigError, match=r"holds no defense; make one with `fedzo defend`"):
        load_defense(tmp_path / "nowhere")


@pytest.mark.slow
def test_it_certifies_more_than_the_undefended_model(digits: Victims) -> None:
    victim, train, test = digits
    config = replace(CONFIG, sigma=0.5, latent=24, epochs=30, steps=4)
    defense = train_defense(victim, train.pixels.unsqueeze(1), config)
    smoothing = Smoothing(sigma=config.sigma, guess=32, count=200, alpha=0.01)
    rates = []
    for purifier in (None, defense.purifier):
        smoothed = SmoothedVictim(
            victim, purifier, config.sigma, generator=np.random.default_rng(0)
        )
        certificates = certify_images(smoothed, test.pixels[:40].unsqueeze(1), smoothing)
        rates.append(certified_accuracy(certificates, test.labels[:40], 0.25))
    print(rates)
    assert rates[1] > rates[0] + 0.1


def test_a_smoothed_victim_tells_shares_of_votes(digits: Victims) -> None:
    victim, _, test = digits
    smoothed = SmoothedVictim(victim, None, 0.1, generator=stream(0, "votes"), votes=16)
    answers = smoothed.ask(test.pixels[:3].unsqueeze(1))
    assert answers.scores is not None
    assert answers.scores.sum(1).tolist() == pytest.approx([1.0] * 3)
    assert set((answers.scores * 16).flatten().tolist()) <= set(map(float, range(17)))


def test_labels_are_not_enough(digits: Victims) -> None:
    victim, train, _ = digits
    with pytest.raises(ConfigError, match=r"this victim tells labels"):
        train_defense(LabelOnly(victim), train.pixels.unsqueeze(1), CONFIG)

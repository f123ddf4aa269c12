"""One call attacks a module, a function of arrays, or a victim, and gives the images back."""

import numpy as np
import pytest
import torch
from torch import nn

from fedzo.attacks.victims.victim import CallableVictim
from fedzo.errors import ConfigError, ObjectiveError
from scenarios.attacks.one_call import attack
from scenarios.attacks.single_attack import attack_victim

pytestmark = pytest.mark.xdist_group("one_call")  # types of the first calls alone are checked
WEIGHTS = np.cos(np.arange(32.0)).reshape(2, 16)
DRAWN = np.random.Generator(np.random.PCG64(0)).uniform(0.2, 0.8, (12, 1, 4, 4))
IMAGES = DRAWN.astype(np.float32)


def scores(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) @ WEIGHTS.T


LABELS = scores(IMAGES).argmax(1)


def test_a_function_of_arrays_is_fooled_and_the_images_prove_it() -> None:
    report = attack(scores, IMAGES, LABELS, radius=0.3, query_budget=200)
    changed = report.adversarials
    assert changed.shape == (12, 1, 4, 4)
    assert float((changed - report.images).abs().max()) <= 0.3 + 1e-6
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    otherwise = scores(changed.numpy()).argmax(1) != report.labels.numpy()
    assert otherwise.tolist() == [found.success for found in report.found]
    assert report.success_rate == otherwise.mean() > 0
    assert "within linf 0.3" in str(report)


def test_a_module_a_function_and_a_victim_are_the_same() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        module[1].weight.copy_(torch.from_numpy(WEIGHTS))
    victim = CallableVictim(lambda images: module(torch.from_numpy(images)).detach())
    found = [
        [one.queries for one in attack(model, IMAGES, LABELS, radius=0.2, seed=1).found]
        for model in (module, victim, victim.function)
    ]
    assert found[0] == found[1] == found[2]


def test_images_that_the_model_gets_wrong_are_left_out() -> None:
    wrong = LABELS.copy()
    wrong[:4] = 1 - wrong[:4]
    assert len(attack(scores, IMAGES, wrong, query_budget=20).images) == 8
    assert len(attack(scores, IMAGES, wrong, query_budget=20, num_images=3).images) == 3
    with pytest.raises(ConfigError, match="images=9 asks for more than the 8 of 12"):
        attack(scores, IMAGES, wrong, num_images=9)
    with pytest.raises(ConfigError, match="images=12 asks for more than the 0 of 12"):
        attack(scores, IMAGES, 1 - LABELS)


def test_labels_alone_and_a_target() -> None:
    report = attack(
        lambda images: scores(images).argmax(1),
        IMAGES,
        LABELS,
        tells="labels",
        target=0,
        radius=0.5,
        query_budget=300,
    )
    assert report.tells == "labels"
    assert all(one.label == 0 for one in report.found if one.success)
    assert not (report.labels == 0).any()


def test_a_universal_perturbation_is_added_to_all() -> None:
    from fedzo.attacks.attack import AttackSettings
    from scenarios.attacks.plan import Plan

    settings = AttackSettings(radius=0.3, universal=True, query_budget=480)
    plan = Plan(num_images=6, settings=settings)
    report = attack_victim(CallableVictim(scores), IMAGES, LABELS, plan)
    assert report.adversarials.shape == (6, 1, 4, 4)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="function is a int, and cannot be called"):
        attack(3, IMAGES, LABELS)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tells=labels: a module tells scores"):
        attack(nn.Flatten(), IMAGES, LABELS, tells="labels")
    with pytest.raises(ConfigError, match="tells=logits has no effect on a Victim"):
        attack(CallableVictim(scores), IMAGES, LABELS, tells="logits")
    with pytest.raises(ObjectiveError, match="the victim failed"):
        attack(lambda images: 1 / 0, IMAGES, LABELS)
    with pytest.raises(ConfigError, match="unknown attacker squar"):
        attack(scores, IMAGES, LABELS, attacker="squar")


def last_scores(images: np.ndarray) -> np.ndarray:
    """The scores of images [n, h, w, c] of three channels, the middle one alone."""
    assert images.shape[1:] == (4, 4, 3)
    assert images.dtype == np.float32
    return scores(images[..., 1])


LAST = np.concatenate([IMAGES, IMAGES, 1 - IMAGES], axis=1).transpose(0, 2, 3, 1)


def test_channels_may_come_last() -> None:
    def last_labels(x: np.ndarray) -> np.ndarray:
        return last_scores(x).argmax(1)

    first = attack(
        lambda x: last_scores(x.transpose(0, 2, 3, 1)),
        LAST.transpose(0, 3, 1, 2),
        LABELS,
        query_budget=30,
    )
    last = attack(last_scores, LAST, LABELS, layout="nhwc", query_budget=30)
    labels = attack(
        last_labels, LAST, LABELS, layout="nhwc", tells="labels", radius=0.3, query_budget=30
    )
    assert torch.equal(first.adversarials, last.adversarials)
    assert not torch.equal(last.adversarials, last.images)
    assert labels.adversarials.shape == (12, 3, 4, 4)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    answers = module(torch.from_numpy(LAST)).argmax(1)
    told = attack(module, LAST, answers, layout="nhwc", num_images=12, query_budget=5)
    assert len(told.found) == 12
    with pytest.raises(ConfigError, match=r"shape \(1, 3, 8, 8\); layout=nhwc says"):
        attack(last_scores, np.zeros((1, 3, 8, 8)), [0], layout="nhwc")
    with pytest.raises(ConfigError, match="layout=hwc must be nchw or nhwc"):
        attack(last_scores, LAST, LABELS, layout="hwc")  # type: ignore[arg-type]


def test_a_radius_may_be_a_fraction() -> None:
    told = attack(scores, IMAGES, LABELS, radius="8/255", query_budget=20)
    assert told.plan.settings.radius == 8 / 255
    with pytest.raises(ConfigError, match="radius='8/25x' is no number; write one"):
        attack(scores, IMAGES, LABELS, radius="8/25x")


def test_labels_where_scores_are_declared_are_named() -> None:
    with pytest.raises(ObjectiveError, match="labels need tells=labels"):
        attack(lambda images: scores(images).argmax(1), IMAGES, LABELS)

"""EfficientNet seen through a bad lens: what is shown, that there is room, and methods on it."""

from collections import Counter

import numpy as np
import pytest
import torch

from fedzo.errors import ConfigError
from scenarios.data.photo_networks import photo_network
from scenarios.data.photos import load_many_photos
from scenarios.finetune.photos import corrupted, corrupted_photos
from scenarios.finetune.task import Task
from scenarios.finetune.tasks import make_task
from scenarios.finetune.trainers import Finetuning
from scenarios.finetune.training import finetune
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate


@pytest.mark.more
def test_there_are_forty_squares_of_each_photograph() -> None:
    squares = load_many_photos(16)
    assert squares.images.shape == (360, 3, 16, 16)
    assert len(set(squares.files)) == 360
    names = Counter(name.split("-")[0] for name in squares.files)
    assert set(names.values()) == {40}
    assert len(names) == 9


def test_what_is_seen_is_grey_blurred_and_noisy() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[..., 16:] = 1
    seen = corrupted(images, generator=np.random.default_rng(0))
    assert seen[..., :10].mean().item() == pytest.approx(0.3, abs=0.01)
    assert seen[..., 22:].mean().item() == pytest.approx(0.7, abs=0.01)
    assert seen[..., :10].std().item() == pytest.approx(0.05, abs=0.005)
    middle = seen[..., 12:20].mean((0, 1, 2)).diff()
    assert (middle > 0).sum() >= 6


def test_more_examples_than_there_are_are_refused() -> None:
    with pytest.raises(ConfigError, match="examples=241"):
        corrupted_photos(241, seed=0)


pytestmark = pytest.mark.xdist_group("photo networks")


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task("corrupted_photos", seed=0, examples=32)


@pytest.mark.slow
def test_a_class_is_what_the_network_says_of_the_clean_square() -> None:
    squares, network = load_many_photos(), photo_network("efficientnet-lite0")
    with torch.no_grad():
        told = torch.cat([network(some) for some in squares.images.split(40)]).softmax(dim=1)
    confidence, answer = told.max(dim=1)
    assert answer.tolist() == squares.labels.tolist()
    assert float(confidence.min()) > 0.3


@pytest.mark.slow
def test_the_network_is_the_packages_and_there_is_room(task: Task) -> None:
    assert task.layers == ("block14", "block15", "features")
    assert sum(p.numel() for p in task.module.parameters()) == 2_768_360
    source = corrupted_photos(32, seed=0)
    whole = photo_network("efficientnet-lite0")
    with torch.no_grad():
        torch.testing.assert_close(
            task.outputs(task.test)[:8], whole(source.test.inputs[:8]), rtol=1e-3, atol=1e-3
        )
    assert 0.1 < task.accuracy() < 0.4


@pytest.mark.slow
@pytest.mark.parametrize(("method", "lr"), [("zo_sgd", 1e-5), ("activity", 1e-4)])
def test_methods_train_it(method: str, lr: float) -> None:
    config = Finetuning(
        task="corrupted_photos", method=method, lr=lr, examples=32, forwards=64, looks=2
    )
    looks = finetune(config)
    assert looks[-1].forwards >= 64
    assert np.isfinite(looks[-1].test_loss)


@pytest.mark.slow
def test_clients_train_it_in_place() -> None:
    settings = {
        "scenario.task": "corrupted_photos", "scenario.examples": 32, "scenario.layers": 0,
        "client.num_directions": 1, "strategy.server_lr": 1e-5,
    }  # fmt: skip
    made = make_experiment("finetune", "mezo", num_rounds=2, num_clients=2, settings=settings)
    result = simulate(made)
    assert result.queries == 8
    assert "test_accuracy" in result.metrics

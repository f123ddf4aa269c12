"""Large images are searched on a grid of cells."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedzo.attacks.attack import AttackSettings, attack
from fedzo.attacks.attacker import Reply, Search, Task
from fedzo.attacks.attackers.surrogate import Surrogate
from fedzo.attacks.attackers.thompson import Thompson
from fedzo.attacks.coarse import coarsely
from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.names import Norm
from fedzo.attacks.region import region_around
from fedzo.attacks.victims.victim import CallableVictim
from fedzo.attacks.victims.wrappers import LabelOnly
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.attacks.attackers import make_attacker

SHAPE = (3, 40, 50)


def task_of(
    norm: Norm = "linf", *, radius: float = 0.02, image: torch.Tensor | None = None
) -> Task:
    image = torch.full((1, *SHAPE), 0.5) if image is None else image
    region = region_around(image, norm, radius)
    return Task(region, Coordinates(), 100, stream(0, "task"))


class Recording:
    """A search that asks one random perturbation on the sphere, and keeps what it is told."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.asked: list[torch.Tensor] = []
        self.told: list[Reply] = []

    def __call__(self, task: Task) -> Search:
        self.tasks.append(task)
        for _ in range(3):
            drawn = task.generator.standard_normal(task.region.dim).astype(np.float32)
            self.asked.append(task.region.toward(torch.from_numpy(drawn)))
            self.told.append((yield self.asked[-1].unsqueeze(0)))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("grid", [7, 16])
def test_sizes_are_those_of_the_image(norm: Norm, grid: int) -> None:
    inside, task = Recording(), task_of(norm)
    search = coarsely(inside, task, grid)
    asked = next(search)
    [small] = inside.tasks
    assert small.region.shape == (3, grid, grid)
    assert task.region.size(asked[0]) == pytest.approx(task.region.radius, rel=1e-5)
    assert small.region.size(inside.asked[0]) == pytest.approx(small.region.radius, rel=1e-5)
    cells = asked[0].reshape(SHAPE)
    edges = [-(-row * 40 // grid) for row in range(grid)]
    for top, below in zip(edges, [*edges[1:], 40], strict=True):
        assert bool((cells[:, top:below] == cells[:, top : top + 1]).all())


def test_answers_pass_and_the_end_is_the_end() -> None:
    inside = Recording()
    search = coarsely(inside, task_of(), 8)
    next(search)
    replies = [Reply(torch.tensor([float(i)]), torch.tensor([False])) for i in range(3)]
    for reply in replies[:2]:
        search.send(reply)
    with pytest.raises(StopIteration):
        search.send(replies[2])
    assert inside.told == replies


def test_nothing_leaves_the_range_of_pixels() -> None:
    drawn = stream(0, "image").random((1, *SHAPE), dtype=np.float32).round()
    image = torch.from_numpy(drawn)
    for norm in ("linf", "l2"):
        task = task_of(norm, radius=0.5, image=image)
        asked = next(coarsely(Recording(), task, 8))
        moved = image.reshape(-1) + asked[0]
        assert float(moved.min()) >= 0
        assert float(moved.max()) <= 1
        assert task.region.contains(asked[0])


def test_what_is_small_or_has_few_numbers_is_searched_as_it_is() -> None:
    task = task_of()
    starts = replace(task, starts=torch.zeros(1, task.region.dim))
    waves = replace(task, coordinates=Coordinates("waves", 3))
    patch = task_of("patch", radius=5)
    for given, grid in ((task, 50), (starts, 8), (waves, 8), (patch, 8)):
        inside = Recording()
        next(coarsely(inside, given, grid))
        assert inside.tasks == [given]


def gradient() -> torch.Tensor:
    """A smooth gradient of an image, of norm 1 at every scale that a grid of 16 can see."""
    coarse = torch.from_numpy(stream(0, "gradient").standard_normal((1, 3, 4, 5))).float()
    return torch.nn.functional.interpolate(coarse, SHAPE[1:], mode="bilinear")[0]


def victim() -> CallableVictim:
    weights = gradient().numpy().astype(np.float64)

    def scores(images: NDArray[np.float32]) -> NDArray[np.float64]:
        moved = (images.astype(np.float64) - 0.5) * weights
        return np.stack([np.zeros(len(images)), moved.reshape(len(images), -1).sum(axis=1)], axis=1)

    return CallableVictim(scores)


@pytest.mark.parametrize(
    ("name", "norm", "far"),
    [("thompson", "linf", 0.6), ("edge", "linf", 0.3), ("fzoos", "l2", 0.6)],
)
def test_a_smooth_gradient_is_found_on_a_grid(name: str, norm: Norm, far: float) -> None:
    """The image is a share `far` of the ball from the boundary along the best direction."""
    g = gradient()
    radius = 0.05 if norm == "linf" else 2.0
    step = radius * (g.sign() if norm == "linf" else g / g.norm())
    image = (0.5 - far * step).unsqueeze(0)
    asked = LabelOnly(victim()) if name == "edge" else victim()
    attacker = make_attacker(name, asked.tells, {"grid": 16})
    settings = AttackSettings(norm=norm, radius=radius, query_budget=300)
    [found] = attack(asked, image, torch.zeros(1, dtype=torch.int64), attacker, settings)
    assert found.success
    assert region_around(image, norm, radius).contains(found.delta)
    assert victim().ask(image + found.delta.reshape(image.shape)).labels.tolist() == [1]


def test_images_of_a_grid_or_less_are_searched_in_pixels() -> None:
    task = task_of(image=torch.full((1, 1, 28, 28), 0.5))
    own = Thompson()
    first, second = own.search(task), own._search(replace(task, generator=stream(0, "task")))
    reply = Reply(torch.tensor([1.0]), torch.tensor([False]))
    assert torch.equal(next(first), next(second))
    assert torch.equal(first.send(reply), second.send(reply))


def test_images_of_a_target_change_nothing_for_who_sees_scores() -> None:
    task = task_of()
    for attacker in (Thompson(grid=8), Surrogate(grid=8)):
        given = replace(task, generator=stream(0, "task"), starts=torch.ones(1, task.region.dim))
        one, other = attacker.search(given), attacker.search(task)
        reply = Reply(torch.tensor([1.0]), torch.tensor([False]))
        assert torch.equal(next(one), next(other))
        assert one.send(reply).shape[1] == other.send(reply).shape[1] == task.region.dim
        assert attacker.first_step(given) == attacker.first_step(task)
    assert Surrogate(grid=2, num_directions=50).first_step(task) == 2 + 12


def test_a_grid_where_there_is_none_is_refused() -> None:
    for norm in ("l0", "patch"):
        with pytest.raises(ConfigError, match=r"attacker\.grid=8 has no effect"):
            make_attacker("thompson", "logits", {"grid": 8}, norm=norm)
    assert make_attacker("thompson", "logits", {"grid": 8}, norm="l2") == Thompson(grid=8)

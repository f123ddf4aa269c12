"""Thompson sampling over windows: it learns where a loss falls, and asks for linf alone."""

import pytest
import torch

from fedzo.attacks.attacker import Reply, Task, start
from fedzo.attacks.attackers.square import Square
from fedzo.attacks.attackers.thompson_square import ThompsonSquare
from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.region import Region
from fedzo.errors import ConfigError
from fedzo.randomness import stream

SIDE = 96
SHAPE = (3, SIDE, SIDE)
DIM = 3 * SIDE**2


def lowest_after(attacker: ThompsonSquare | Square, queries: int, seed: int) -> float:
    """Return the least value of a linear loss with smooth slopes, of -1 at best."""
    rows = torch.arange(SIDE) / SIDE
    waves = torch.stack([torch.sin(17 * rows), torch.cos(23 * rows), torch.sin(31 * rows + 1)])
    slope = (waves.unsqueeze(2) * waves.flip(0).unsqueeze(1)).reshape(-1)
    slope = slope / slope.abs().sum()
    region = Region("linf", 1.0, -torch.ones(DIM), torch.ones(DIM), SHAPE)
    running = start(attacker, Task(region, Coordinates(), 1000, stream(seed, "windows")))
    best = 0.0
    for _ in range(queries):
        losses = (running.asked @ slope).double()
        best = min(best, float(losses.min()))
        running.tell(Reply(losses, torch.zeros(len(losses), dtype=torch.bool)))
    return best


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_falls_faster_than_random_windows(seed: int) -> None:
    learned = lowest_after(ThompsonSquare(lengthscale=0.05), 120, seed)
    random = lowest_after(Square(area=0.2), 120, seed)
    assert learned < 1.15 * random < 0


@pytest.mark.parametrize("norm", ["l2", "l0", "patch"])
def test_other_norms_are_refused(norm: str) -> None:
    region = Region(norm, 3.0, -torch.ones(DIM), torch.ones(DIM), SHAPE)
    with pytest.raises(ConfigError, match="thompson_square is for norm linf, not"):
        start(ThompsonSquare(), Task(region, Coordinates(), 100, stream(0, "refused")))


def test_a_refused_first_answer_does_not_end_it() -> None:
    region = Region("linf", 0.1, -torch.ones(DIM), torch.ones(DIM), SHAPE)
    running = start(ThompsonSquare(), Task(region, Coordinates(), 100, stream(0, "refused")))
    for loss in (float("nan"), 1.0, float("nan"), 0.5):
        assert bool(running.asked.isfinite().all())
        running.tell(Reply(torch.tensor([loss]).double(), torch.tensor([False])))
    assert region.contains(running.asked[0])

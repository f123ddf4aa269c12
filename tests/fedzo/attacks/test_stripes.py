"""Random search by stripes: what is proposed, and that it finds what stripes can."""

import math

import numpy as np
import pytest
import torch

from fedzo.attacks.attacker import Reply, Task, start
from fedzo.attacks.attackers.square import Square
from fedzo.attacks.attackers.stripes import Stripes
from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.names import Norm
from fedzo.attacks.region import Region, region_around
from fedzo.attacks.stripes import crossed, grey
from fedzo.errors import ConfigError
from fedzo.randomness import stream

SHAPE = (3, 24, 20)
DIM = math.prod(SHAPE)


def region(norm: Norm, radius: float) -> Region:
    return region_around(torch.full((1, *SHAPE), 0.5), norm, radius)


def lowest(attacker: Stripes | Square, norm: Norm, radius: float, slope: torch.Tensor) -> float:
    """Return the least that a linear loss falls to in 300 queries, everything being inside."""
    ball = region(norm, radius)
    running = start(attacker, Task(ball, Coordinates(), 300, stream(3, "stripes")))
    least = 0.0
    for _ in range(300):
        assert all(ball.contains(delta) for delta in running.asked)
        losses = running.asked.double() @ slope
        least = min(least, float(losses.min()))
        running.tell(Reply(losses, torch.zeros(len(losses), dtype=torch.bool)))
    return least / float(ball.toward(slope.float()).double() @ slope)


def stripes_of(seed: int) -> torch.Tensor:
    """Return a slope of grey stripes, three pixels wide."""
    signs = stream(seed, "slope").choice(np.array([-1.0, 1.0]), 7).repeat(3)[:20]
    return torch.from_numpy(np.broadcast_to(signs, SHAPE).reshape(-1).copy())


@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.1), ("l2", 2.0)])
def test_it_finds_stripes_where_squares_do_not(norm: Norm, radius: float) -> None:
    ours = lowest(Stripes(), norm, radius, stripes_of(0))
    assert 0.5 < ours <= 1 + 1e-6
    assert ours > lowest(Square(), norm, radius, stripes_of(0)) + 0.1


def test_the_start_is_grey_stripes_at_the_ends() -> None:
    running = start(Stripes(), Task(region("linf", 0.1), Coordinates(), 9, stream(0, "start")))
    table = running.asked.reshape(SHAPE)
    assert torch.equal(table.abs(), torch.full(SHAPE, 0.1))
    assert torch.equal(table, table[:1, :1].expand(SHAPE))
    assert len(table[0, 0].unique()) == 2


def test_without_bands_it_is_square_attack_but_for_the_start() -> None:
    """Every proposal changes one square, each channel to one end."""
    ball = region("linf", 0.1)
    running = start(Stripes(share=0.0), Task(ball, Coordinates(), 200, stream(1, "start")))
    best = running.asked[0]
    for loss in range(100):
        running.tell(Reply(torch.tensor([-float(loss)]), torch.zeros(1, dtype=torch.bool)))
        moved = (running.asked[0] - best).reshape(SHAPE).ne(0).any(dim=0).nonzero()
        best = running.asked[0]
        if len(moved):
            assert bool(((moved.amax(0) - moved.amin(0)) < 12).all())


@pytest.mark.parametrize("attacker", [Stripes(candidates=7), Square(candidates=7)])
def test_candidates_are_asked_together_and_the_best_is_kept(attacker: Stripes | Square) -> None:
    ball = region("linf", 0.1)
    running = start(attacker, Task(ball, Coordinates(), 300, stream(3, "candidates")))
    slope = stripes_of(1)
    assert len(running.asked) == 1
    best = math.inf
    kept = running.asked[0]
    for _ in range(20):
        losses = running.asked.double() @ slope
        if float(losses.min()) < best:
            best, kept = float(losses.min()), running.asked[int(losses.argmin())]
        running.tell(Reply(losses, torch.zeros(len(losses), dtype=torch.bool)))
        assert len(running.asked) == 7
        changed = (running.asked != kept).any(dim=1)
        assert bool(changed.any())
        assert float((running.asked != kept).float().mean()) < 0.5
    losses = torch.full((7,), torch.nan)
    losses[3] = -1e9
    wanted = running.asked[3]
    running.tell(Reply(losses, torch.zeros(7, dtype=torch.bool)))
    assert float((running.asked != wanted).float().mean()) < 0.5


def test_luma_weighs_three_channels_and_the_norm_stays() -> None:
    planes = torch.from_numpy(stream(0, "planes").standard_normal((2, 24, 20))).float()
    for channels in (1, 3, 4):
        flat = grey(planes, channels)
        torch.testing.assert_close(flat.norm(dim=1), planes.flatten(1).norm(dim=1))
        ratios = flat.reshape(2, channels, 24, 20)[:, :, 0, 0] / planes[:, :1, 0]
        wanted = [0.299, 0.587, 0.114] if channels == 3 else [1.0] * channels
        told = torch.tensor(wanted) / torch.tensor(wanted).norm()
        torch.testing.assert_close(ratios, told.expand(2, channels))


def test_crossed_stripes_are_sums_of_rows_and_columns() -> None:
    heights = torch.arange(44.0).reshape(1, 44)
    [plane] = crossed(heights, SHAPE)
    torch.testing.assert_close(plane[1] - plane[0], torch.full((20,), 1 / math.sqrt(20)))
    torch.testing.assert_close(plane[:, 1] - plane[:, 0], torch.full((24,), 1 / math.sqrt(24)))
    one = torch.zeros(1, 44)
    one[0, 5] = 1.0
    assert float(crossed(one, SHAPE).norm()) == pytest.approx(1.0)


def test_other_norms_and_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="norms linf and l2, not l0"):
        start(Stripes(), Task(region("l0", 5), Coordinates(), 9, stream(0, "start")))
    with pytest.raises(ConfigError, match="share"):
        Stripes(share=1.5)

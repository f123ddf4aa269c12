"""Directions of a structure: bits that do not depend on cuts, moments by formula, ranks, supports."""

import math

import pytest
import torch
from module_nets import loss_of, net
from torch import nn

from fedzo.errors import ConfigError
from fedzo.estimation.keys import Key
from fedzo.estimation.structured import Axis, Combination, Fixed, Masked, Scaled, Within
from fedzo.estimation.view import View
from fedzo.finetuning.masks import draw_mask, part_mask, random_mask
from fedzo.finetuning.samplers import Blocks, Keyed, LowRankNoise, Subspaces
from fedzo.finetuning.zeroth_order import ZerothOrder

M, N = 5, 7
MATRIX = View.of_named({"w": torch.linspace(-1, 1, M * N).reshape(M, N)})
KEY = Key(seed=4, law="gaussian")


def wide() -> View:
    module = nn.ModuleDict({"a": nn.Linear(300, 70), "b": nn.Conv2d(3, 9, 3), "c": nn.Linear(2, 2)})
    return View.of_module(module)


def kinds() -> dict[str, object]:
    view = wide()
    mask = random_mask(view, dict.fromkeys(view.names, 0.3), seed=1, turn=0)
    return {
        "masked": Masked(KEY, mask),
        "within": Within(KEY, (200, 20_000)),
        "scaled": Scaled(KEY, torch.linspace(0, 2, view.total)),
        "fixed": Fixed(torch.linspace(0, 2, view.total)),
        "axis": Axis(20_017),
        "combination": Combination([(KEY, 0.5), (KEY.at(1), -2.0)]),
        "low rank": LowRankNoise(0, view, rank=3).directions(7, 1)[0],
        "subspace": Subspaces(0, view, rank=4).directions(7, 1)[0],
        "one-sided": Subspaces(0, view, rank=4, one_sided=True).directions(7, 1)[0],
    }


@pytest.mark.parametrize("name", kinds())
def test_bits_do_not_depend_on_the_cut(name: str) -> None:
    u, total = kinds()[name], wide().total
    whole = u.draw(0, total)  # type: ignore[attr-defined]
    for step in (777, 4096, 20_999):
        cut = [u.draw(a, min(a + step, total)) for a in range(0, total, step)]  # type: ignore[attr-defined]
        assert torch.equal(torch.cat(cut), whole)


def second_moment(sampler, count: int, draws: int = 4000) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Return the mean of |g|^2 / |a|^2 for a linear function, and its standard error."""
    a = torch.linspace(-1, 2, M * N)
    found = []
    for step in range(draws):
        rows = torch.stack([u.draw(0, M * N) for u in sampler.directions(step, count)])
        g = rows.T @ (rows @ a) * sampler.weight(len(rows))
        found.append(float(g.square().sum() / a.square().sum()))
    values = torch.tensor(found)
    return float(values.mean()), float(values.std() / math.sqrt(draws))


D, R = M * N, 2
MOMENTS = {
    "normals": (Keyed(0, "gaussian"), 3, (D + 3 + 1) / 3),
    "signs": (Keyed(0), 3, (D + 3 - 1) / 3),
    "low rank": (LowRankNoise(0, MATRIX, rank=R, refresh=1), 1, D + 2 * (M + N + R + 1) / R),
    "subspace": (Subspaces(0, MATRIX, rank=R, refresh=1), 1, D * (R * R + 2) / (R * R)),
    "one-sided": (
        Subspaces(0, MATRIX, rank=R, refresh=1, one_sided=True), 1, D * (R * N + 2) / (R * N),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOMENTS)
def test_second_moments_are_those_of_the_formulas(name: str) -> None:
    sampler, count, wanted = MOMENTS[name]
    mean, error = second_moment(sampler, count)
    assert abs(mean - wanted) < 5 * error


@pytest.mark.parametrize("name", MOMENTS)
def test_estimates_are_unbiased(name: str) -> None:
    sampler, count, _ = MOMENTS[name]
    a = torch.linspace(-1, 2, D)
    g = torch.stack(
        [
            rows.T @ (rows @ a) * sampler.weight(count)
            for step in range(4000)
            for rows in [torch.stack([u.draw(0, D) for u in sampler.directions(step, count)])]
        ]
    )
    error = g.std(dim=0) / math.sqrt(len(g))
    assert ((g.mean(dim=0) - a).abs() < 5 * error).all()


@pytest.mark.parametrize(("method", "rank"), [("lozo", 2), ("subzero", 16)])
def test_steps_of_a_period_have_the_rank_of_their_directions(method: str, rank: int) -> None:
    module = nn.Sequential(nn.Linear(6, 40, bias=False), nn.Tanh(), nn.Linear(40, 3))
    before = module[0].weight.detach().clone().double()
    optimizer = ZerothOrder(module, 1.0, method=method)
    for _ in range(5):
        optimizer.step(loss_of(module))
    change = module[0].weight.detach().double() - before
    assert torch.linalg.matrix_rank(change, rtol=1e-5) <= min(rank, 6)


@pytest.mark.parametrize("method", ["lozo", "mezo", "subzero", "sparse_mezo"])
def test_a_step_goes_along_the_probed_direction_also_when_parts_are_renewed(method: str) -> None:
    module = net()
    optimizer = ZerothOrder(module, 1.0, method=method)
    for step in (0, 49, 50, 51):
        while optimizer.steps < step:
            optimizer.step(loss_of(module))
        before = torch.cat([p.detach().reshape(-1).clone() for p in module.parameters()]).double()
        finder = optimizer._recipe.finder
        [u] = finder.sampler.directions(step, 1)  # type: ignore[attr-defined]
        probed = u.draw(0, optimizer.view.total).double()
        optimizer.step(loss_of(module))
        after = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).double()
        cosine = torch.cosine_similarity(probed, after - before, dim=0)
        assert abs(float(cosine)) > 1 - 1e-5


def test_masks_choose_their_share_and_the_rest_stays() -> None:
    view = View.of_module(net())
    small = draw_mask("small", view, 0.25, seed=0, turn=0)
    large = draw_mask("large", view, 0.25, seed=0, turn=0)
    sizes = torch.cat([p.detach().abs().reshape(-1) for p in view.tensors])
    first = slice(0, 48)
    assert small[first].sum() == 12
    assert sizes[first][small[first]].max() <= sizes[first][~small[first]].min()
    assert sizes[first][large[first]].min() >= sizes[first][~large[first]].max()
    many = View.of_named({"w": torch.zeros(100, 100)})
    share = float(draw_mask("random", many, 0.3, seed=0, turn=0).float().mean())
    assert abs(share - 0.3) < 5 * math.sqrt(0.21 / 10_000)
    module = net()
    before = torch.cat([p.detach().reshape(-1).clone() for p in module.parameters()])
    optimizer = ZerothOrder(module, 1.0, method="sparse_mezo")
    for _ in range(3):
        optimizer.step(loss_of(module))
    after = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    assert torch.equal(before[~small], after[~small])
    assert (before[small] != after[small]).all()
    with pytest.raises(ConfigError, match="share=0"):
        draw_mask("small", view, 0.0, seed=0, turn=0)


def test_blocks_cover_the_module_once_with_noise_of_their_own() -> None:
    view = View.of_module(nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)]))
    parts = view.blocks(3)
    assert sum(part_mask(part).int() for part in parts).eq(1).all()  # type: ignore[union-attr]
    first, second, third = Blocks(0, parts).directions(0, 1)
    total = first.draw(0, 100) + second.draw(0, 100) + third.draw(0, 100)
    assert total.abs().eq(1).all()
    assert not torch.equal(total[:20], total[20:40])

"""Directions of a structure: bits that do not depend on cuts, moments, ranks, supports."""

import math

import pytest
import torch
from module_nets import loss_of, net
from torch import nn

from fedzo.errors import ConfigError
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.keys import Key
from fedzo.estimation.packed import Packed
from fedzo.estimation.place import write_moved
from fedzo.estimation.shifted_reads import ask_moved
from fedzo.estimation.structured import Axis, Combination, Fixed, Masked, Scaled, Within
from fedzo.estimation.view import View
from fedzo.finetuning.finding import weighted
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


@pytest.mark.more
@pytest.mark.parametrize("name", MOMENTS)
def test_estimates_are_unbiased_and_their_second_moments_those_of_the_formulas(name: str) -> None:
    sampler, count, wanted = MOMENTS[name]
    a, draws = torch.linspace(-1, 2, D), 250
    steps = [sampler.directions(step, count) for step in range(draws)]
    rows = torch.stack([torch.stack([u.draw(0, D) for u in step]) for step in steps])
    weights = sampler.weights(torch.ones(count, dtype=torch.bool)).float()
    g = torch.einsum("smd,sm->sd", rows, rows @ a * weights)
    error = g.std(dim=0) / math.sqrt(draws)
    assert ((g.mean(dim=0) - a).abs() < 5 * error).all()
    moments = g.square().sum(dim=1) / a.square().sum()
    assert abs(moments.mean() - wanted) < 5 * moments.std() / math.sqrt(draws)


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


def test_parameters_by_themselves_are_blocks() -> None:
    module = net()
    optimizer = ZerothOrder(module.parameters(), 0.1, method="block_zo", settings={"blocks": 4})
    optimizer.step(loss_of(module))
    assert optimizer.spent.forwards == 2 * 3  # of about equal size: 48, 8 + 24, and 3 numbers
    assert len(View.of_module(nn.Linear(3, 3)).blocks(2)) == 1


def test_a_block_without_a_value_leaves_the_steps_of_the_others_as_they_are() -> None:
    parts = View.of_named({"a.weight": torch.zeros(3), "b.weight": torch.zeros(4)}).blocks(2)
    sampler = Blocks(0, parts)
    directions = sampler.directions(0, 2)
    whole = weighted(directions, torch.ones(4), sampler).vector(7)
    assert torch.equal(whole, sum(u.draw(0, 7) for u in directions) / 2)  # type: ignore[union-attr]
    lost = weighted(directions, torch.tensor([torch.nan, 1.0, torch.nan, 1.0]), sampler).vector(7)
    assert torch.equal(lost, torch.cat([torch.zeros(3), whole[3:]]))
    one = weighted(directions, torch.tensor([torch.nan, 1.0, 1.0, 1.0]), sampler).vector(7)
    assert torch.equal(one, torch.cat([directions[2].draw(0, 3), whole[3:]]))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("first", [0, 5, (1 << 18) - 3000, (1 << 22) - 3000])
def test_packed_signs_move_to_the_bits_of_the_key(kind: torch.dtype, first: int) -> None:
    key = Key(seed=3)
    for size in (7, 20_000, 200_001):
        source = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(kind)
        outs = [source.clone(), torch.empty_like(source)]
        for out in outs:
            write_moved(out, out if out is outs[0] else source, first, [(Packed(key), 0.37)])
            wide = source.double() if kind == torch.float64 else source.float()
            u = key.draw(first, first + size).to(wide.dtype) * 0.37
            assert torch.equal(out, (wide + u).to(kind))
        for each in (1, 8):
            starts = first + torch.randint(0, max(1, size // each - 2), (11,)) * each
            signs = Packed(key).rows(starts, 3)
            at = starts.unsqueeze(1) + torch.arange(3) - first
            assert torch.equal(signs, key.draw(first, first + size)[at])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_looking_up_rows_moves_them_as_moving_the_table_would(kind: torch.dtype) -> None:
    table = nn.Embedding(3000, 33, padding_idx=0).to(kind)
    indices = torch.randint(0, 3000, (4, 9))
    terms = [(Packed(Key(seed=1)), 0.1), (Packed(Key(seed=1, direction=1)), -0.2)]
    place = InPlace(
        [nn.Parameter(torch.zeros(11, dtype=kind)), table.weight], lambda: table(indices)
    )
    moved = ask_moved(place.ask, (place.place, terms)).detach()
    whole = torch.empty_like(table.weight)
    write_moved(whole, table.weight.detach(), 11, terms)
    assert torch.equal(moved, whole.detach()[indices])


def test_a_small_layer_before_a_large_one_is_a_block_of_its_own() -> None:
    net = nn.Sequential(nn.Linear(5, 2), nn.Tanh(), nn.Linear(2, 100))
    parts = View.of_module(net).blocks(4)
    assert [part.dim for part in parts] == [12, 300]

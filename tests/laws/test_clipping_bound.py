"""No record is longer than its clip norm, whatever it holds: a directed search for one that is.

Records start where one layer's gradient hardly changes between the two points, or where squares
over- or underflow, and climb: what makes the clipped vector longer is kept. The sums are taken
below `clipped_sums`, which would hold a sum of one record to C by itself.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedzo.objectives.objective import ModuleObjective
from fedzo.privacy import clipping
from fedzo.privacy.layers import Layer, clipped_sums_of
from fedzo.privacy.linear import sum_of_linear
from fedzo.privacy.rounding import clip_rows, hold
from fedzo.randomness import stream
from scenarios.problems.mlp_cohort import MLPShards

FEW, MANY = 2_000, 20_000
DECADES = {torch.float32: 30.0, torch.float64: 300.0}
DTYPES = list(DECADES)


def powers(random: np.random.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.as_tensor(10.0 ** random.uniform(low, high, shape))


def normal(random: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(random.standard_normal(shape))


@dataclass(frozen=True)
class Seen:
    """What layers have seen of n records at two points: inputs and slopes, then and before."""

    tensors: tuple[Tensor, ...]
    biases: tuple[bool, ...]
    changes: bool

    def layers(self, which: int, dtype: torch.dtype) -> list[Layer]:
        parts = self.tensors[2 * which :: 4], self.tensors[2 * which + 1 :: 4]
        return [
            Layer(a.to(dtype).unsqueeze(1), e.to(dtype).unsqueeze(1), bias=bias)
            for a, e, bias in zip(*parts, self.biases, strict=True)
        ]

    def excess(self, clip_norms: Tensor, dtype: torch.dtype) -> Tensor:
        """Return how long the clipped vector of each is, in clip norms."""
        before = self.layers(1, dtype) if self.changes else None
        sums, _ = clipped_sums_of(self.layers(0, dtype), before, clip_norms)
        kept = [
            part.flatten(1)
            for (matrix, bias), has in zip(sums, self.biases, strict=True)
            for part in ((matrix, bias) if has else (matrix,))
        ]
        return (torch.cat(kept, dim=1).double() / clip_norms.unsqueeze(1)).norm(dim=1)

    def moved(self, random: np.random.Generator, dtype: torch.dtype) -> "Seen":
        """Return records a little aside, from one unit in the last place to a thousandth."""
        low = math.log10(torch.finfo(dtype).eps)
        steps = [
            t
            * (1 + powers(random, low, -3, len(t), *[1] * (t.dim() - 1)) * normal(random, *t.shape))
            for t in self.tensors
        ]
        return replace(self, tensors=tuple(steps))

    def where(self, better: Tensor, other: "Seen") -> "Seen":
        pairs = zip(self.tensors, other.tensors, strict=True)
        picked = [torch.where(better.reshape(-1, *[1] * (t.dim() - 1)), new, t) for t, new in pairs]
        return replace(self, tensors=tuple(picked))


def adversarial(
    random: np.random.Generator, count: int, dtype: torch.dtype, rows: int, changes: bool
) -> Seen:
    """Draw records whose gradient hardly changes, with features of all sizes."""
    decades, tensors = DECADES[dtype], list[Tensor]()
    for ins, outs in ((3, 2), (1, 1)):
        shape = (count, rows) if rows else (count,)
        size = powers(random, -decades, decades, count, *[1] * len(shape))
        share = powers(random, -decades / 2, decades / 2, count, *[1] * len(shape))
        a, e = normal(random, *shape, ins) * size, normal(random, *shape, outs) * share / size
        near = powers(random, -9, 0, count, *[1] * len(shape)) * normal(random, *shape, 1)
        off = powers(random, -17, -1, count, *[1] * len(shape)) * normal(random, *shape, outs)
        largest = torch.finfo(dtype).max / 16
        found = (a, e, a * (1 + near), e / (1 + near) * (1 + off))
        tensors += [part.clamp(-largest, largest) for part in found]
        if rows:  # two rows that all but cancel within a record
            tensors[-4][:, 1] = tensors[-4][:, 0]
            tensors[-3][:, 1] = -tensors[-3][:, 0] * (1 + off[:, 0])
    return Seen(tuple(tensors), (bool(random.integers(2)), bool(random.integers(2))), changes)


def clip_norms_for(random: np.random.Generator, found: Seen, dtype: torch.dtype) -> Tensor:
    """Return clip norms about the lengths of what is clipped, half of them far from it."""
    lengths = torch.stack(
        [
            (torch.cat([m.flatten(1), b], dim=1)).abs().amax(dim=1)
            for m, b in clipped_sums_of(
                found.layers(0, torch.float64),
                found.layers(1, torch.float64) if found.changes else None,
                torch.full((len(found.tensors[0]),), torch.inf, dtype=torch.float64),
            )[0]
        ]
    ).amax(dim=0)
    near = lengths * powers(random, -4, 0.5, len(lengths))
    far = powers(random, -20, 20, len(lengths))
    picked = torch.where(torch.from_numpy(random.random(len(lengths)) < 0.5), near, far)
    tiny = torch.finfo(dtype).tiny
    return picked.nan_to_num(1.0).clamp(tiny * 2**26, torch.finfo(dtype).max / 2**10)


def searched(count: int, dtype: torch.dtype, rows: int, changes: bool, seed: int) -> float:
    """Return the largest |clipped| / C that was found among `count` records."""
    random, worst = stream(seed, "bound", str(dtype), rows, changes), 0.0
    together, climbs = min(count, 500), 10
    for _ in range(max(1, count // (together * climbs))):
        now = adversarial(random, together, dtype, rows, changes)
        clip_norms = clip_norms_for(random, now, dtype)
        best = now.excess(clip_norms, dtype)
        for _ in range(climbs):
            other = now.moved(random, dtype)
            length = other.excess(clip_norms, dtype)
            now, best = now.where(length > best, other), best.maximum(length)
        worst = max(worst, float(best.max()))
    return worst


KINDS = [(0, False), (0, True), (3, False)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "changes"), KINDS, ids=["gradients", "changes", "sequences"])
def test_nothing_that_layers_see_makes_a_record_longer_than_its_clip_norm(
    dtype: torch.dtype, rows: int, changes: bool
) -> None:
    if rows:
        pytest.importorskip("opacus")
    assert 0.9 < searched(FEW, dtype, rows, changes, 0) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "changes"), KINDS, ids=["gradients", "changes", "sequences"])
def test_nothing_is_found_in_a_long_search(dtype: torch.dtype, rows: int, changes: bool) -> None:
    if rows:
        pytest.importorskip("opacus")
    assert 0.9 < max(searched(MANY, dtype, rows, changes, seed) for seed in range(3)) <= 1


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs.squeeze(-1) - targets) ** 2).mean()


class Opaque(nn.Module):
    """A module of which nobody knows what it is made of."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Plain:
    """An objective over records that knows nothing of privacy."""

    def __init__(self, inner: ModuleObjective) -> None:
        self._inner = inner
        self.dim, self.num_examples = inner.dim, inner.num_examples
        self.lower, self.upper = -math.inf, math.inf

    def minibatch(self, indices: Tensor) -> "Plain":
        return Plain(self._inner.minibatch(indices))

    def value(self, x: Tensor) -> Tensor:
        return self._inner.value(x)


Points = tuple[Tensor, Tensor | None]


def closed(own: ModuleObjective, at: Points, clip_norm: float) -> Tensor:
    found = sum_of_linear(own, *at, clip_norm, 1 << 20)
    assert found is not None
    return found[0]


def mapped(own: ModuleObjective, at: Points, clip_norm: float) -> Tensor:
    opaque = replace(own, module=Opaque(own.module))
    return clipping._sum_of_one(opaque, *at, clip_norm, 1 << 20)[0]


def looped(own: ModuleObjective, at: Points, clip_norm: float) -> Tensor:
    return clipping._sum_of_one(Plain(own), *at, clip_norm, 1 << 20)[0]


def cohort(own: ModuleObjective, at: Points, clip_norm: float) -> Tensor:
    one = torch.ones(1, dtype=torch.int64)
    shards = MLPShards(
        inputs=own.inputs,
        targets=own.targets,
        offsets=0 * one,
        sizes=one,
        layers=(1, 1, 1),
        loss="squared",
    )
    x, before = (None if p is None else p.unsqueeze(0) for p in at)
    assert x is not None
    return shards.clipped_sums(x, before, one.double() * clip_norm, 1 << 20).sums[0]


def turning_records(
    random: np.random.Generator, dtype: torch.dtype
) -> Iterator[tuple[ModuleObjective, Points, float]]:
    """Yield records about the target at which the outer layer's gradient does not change."""
    net = nn.Sequential(nn.Linear(1, 1, dtype=dtype), nn.ReLU(), nn.Linear(1, 1, dtype=dtype))
    u = float(powers(random, -300, 300)) if dtype == torch.float64 else float(powers(random, -8, 8))
    first, outer = random.uniform(1, 10), float(powers(random, -9, 0)) * 2
    moved = first * (1 + float(powers(random, -6, -1)))
    now, then = ((w, 0.0, outer, b) for w, b in ((first, 0.0), (moved, -outer * u * 1e-9)))
    x, before = (torch.tensor(p, dtype=torch.float64).to(dtype) for p in (now, then))
    (p0, _, p2, p3), (q0, _, q2, q3) = x.tolist(), before.tolist()
    a, b = p0 * u, q0 * u
    turn = ((p2 * a + p3) * a - (q2 * b + q3) * b) / (a - b) if a != b else 0.0
    if not math.isfinite(turn):
        return
    for k in range(-3, 4):
        target = torch.tensor([turn * (1 + k * 1e-9)], dtype=torch.float64).to(dtype)
        feature = torch.tensor([[u]], dtype=torch.float64).to(dtype)
        own = ModuleObjective(net, squared_error, feature, target)
        yield own, (x, before), 3 * float((x - before).double().norm())
        yield own, (x, None), float(powers(random, -2, 2))


@pytest.mark.more
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("path", [closed, mapped, looped, cohort])
def test_no_way_of_clipping_lets_a_chosen_record_through(
    path: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    random = stream(5, "turning", str(dtype))
    for _ in range(3):
        for own, at, clip_norm in turning_records(random, dtype):
            found = path(own, at, clip_norm).double() / clip_norm
            assert float(found.norm()) <= 1


CASES: list[tuple[Any, ...]] = [
    (torch.float32, [6.3597142, 0.0, 0.0027363, 0.0], [6.3818349, 0.0, 0.0027363, 0.0028715], 1e3),
    (torch.float32, [6.9941212, 0.0, 0.0015185, 0.0], [7.4900747, 0.0, 0.0015185, -0.0153658], 1e4),
    (torch.float32, [4.3747623, 0.0, 0.0016388, 0.0], [4.376358, 0.0, 0.0016388, -0.00034], 1e5),
    (torch.float64, [9.336053, 0.0, 2e-9, 0.0], [9.3372556, 0.0, 2e-9, 4.93e-05], 1e9),
]


@pytest.mark.parametrize(("dtype", "now", "then", "feature"), CASES)
def test_the_records_by_which_it_was_found(
    dtype: torch.dtype, now: list[float], then: list[float], feature: float
) -> None:
    """In these the closed form let up to 19,070 C through."""
    net = nn.Sequential(nn.Linear(1, 1, dtype=dtype), nn.ReLU(), nn.Linear(1, 1, dtype=dtype))
    x, before = (torch.tensor(p, dtype=torch.float64).to(dtype) for p in (now, then))
    (p0, _, p2, p3), (q0, _, q2, q3) = x.tolist(), before.tolist()
    a, b = p0 * feature, q0 * feature
    turn = ((p2 * a + p3) * a - (q2 * b + q3) * b) / (a - b)
    clip_norm = 3 * float((x - before).double().norm())
    own = ModuleObjective(net, squared_error, torch.tensor([[feature]], dtype=dtype), x[:1])
    for k in range(-200, 200, 40):
        target = torch.tensor([turn * (1 + k * 1e-9)], dtype=torch.float64).to(dtype)
        one = replace(own, targets=target)
        for path in (closed, cohort):
            found = path(one, (x, before), clip_norm)
            assert float(found.double().norm()) <= clip_norm


def rows_of_all_sizes(count: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    random, decades = stream(seed, "rows", str(dtype)), 300 if dtype == torch.float64 else 37
    rows = normal(random, count, 5) * powers(random, -decades, decades, count, 1)
    clip_norms = (rows.norm(dim=1) * powers(random, -3, 1, count)).nan_to_num(1, 1, 1)
    near = torch.finfo(dtype)
    return rows.to(dtype), clip_norms.clamp(near.tiny * 2**26, near.max / 2**10)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
def test_rows_of_any_size_are_clipped(dtype: torch.dtype) -> None:
    rows, clip_norms = rows_of_all_sizes(MANY, dtype, 6)
    lengths = (clip_rows(rows, clip_norms).sums.double() / clip_norms.unsqueeze(1)).norm(dim=1)
    assert 1 - 8 * torch.finfo(dtype).eps < float(lengths.max()) <= 1


def test_rows_whose_squares_overflow_or_vanish_keep_their_direction() -> None:
    rows = torch.tensor([[3e200, 4e200], [3e-200, 4e-200], [torch.inf, 0.0]]).double()
    rows[:2] = torch.tensor([[3e200, 4e200], [3e-200, 4e-200]], dtype=torch.float64)
    found = clip_rows(rows, torch.tensor([1.0, 1e-200, 1.0], dtype=torch.float64))
    expected = torch.tensor([[0.6, 0.8], [0.6e-200, 0.8e-200], [0, 0]], dtype=torch.float64)
    torch.testing.assert_close(found.sums, expected, rtol=1e-12, atol=0)
    assert found.shortened.tolist() == [1, 1, 1]
    wide = clip_rows(torch.tensor([[3e38, 3e38]]), 1.0)
    torch.testing.assert_close(wide.sums, torch.full((1, 2), 0.5**0.5))


def test_clipping_shrinks_by_no_more_than_is_stated() -> None:
    for dtype, least in ((torch.float32, 2.0**-20), (torch.float64, 2.0**-49)):
        found = clip_rows(torch.tensor([[3.0, 4.0]], dtype=dtype), 1.0).sums.double().norm()
        assert 1 - least <= float(found) <= 1
    short = torch.tensor([[0.6, 0.79999]])
    assert torch.equal(clip_rows(short, 1.0).sums, short)


def test_sums_are_held_to_the_clip_norms_of_all_records_and_failures_stay() -> None:
    sums = torch.tensor([[3.0, 4.0], [0.3, 0.4], [torch.nan, torch.nan]])
    found = hold(clipping.Clipped(sums, torch.zeros(3)), torch.ones(3).double())
    torch.testing.assert_close(found.sums[0], torch.tensor([0.6, 0.8]))
    assert torch.equal(found.sums[1], sums[1])
    assert bool(found.sums[2].isnan().all())

"""Clipped sums of records' gradients: closed form, mapped and looped against autograd; laws."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedzo.errors import ConfigError
from fedzo.objectives.cohort import cohort_of
from fedzo.objectives.objective import ModuleObjective, TorchObjective
from fedzo.privacy.clipping import clip_rows, clipped_sums, record_values, shrink
from fedzo.randomness import stream
from scenarios.problems.mlp_cohort import MLPBatches, MLPShards, mlp_dim

SHAPES: list[tuple[Any, tuple[int, ...], Any]] = [
    ("squared", (5, 7, 1), "softplus"),
    ("cross_entropy", (5, 7, 4, 3), "relu"),
    ("cross_entropy", (5, 3), "softplus"),
]
SIZES = (11, 4, 7)


def shards(loss: Any, layers: tuple[int, ...], activation: Any, sizes: Any = SIZES) -> MLPShards:
    random, total = stream(1, "shards"), sum(sizes)
    counts = torch.tensor(sizes)
    labels = random.integers(0, layers[-1], total)
    targets = random.standard_normal(total) if loss == "squared" else labels
    return MLPShards(
        inputs=torch.from_numpy(random.standard_normal((total, layers[0]))),
        targets=torch.from_numpy(targets),
        offsets=counts.cumsum(0) - counts,
        sizes=counts,
        layers=layers,
        loss=loss,
        activation=activation,
    )


def points(dim: int, n: int, step: float = 1e-3) -> tuple[Tensor, Tensor]:
    random = stream(2, "points", dim, n)
    x = torch.from_numpy(random.standard_normal((n, dim)))
    return x, x + step * torch.from_numpy(random.standard_normal((n, dim)))


def record_gradients(own: MLPShards, position: int, x: Tensor) -> Tensor:
    rows = []
    for j in range(int(own.sizes[position])):
        point = x.clone().requires_grad_(True)
        index = torch.clamp(torch.full_like(own.sizes, j), max=own.sizes - 1).unsqueeze(1)
        value = own.minibatch(index).value(point.expand(len(own.sizes), 1, -1))[position, 0]
        rows.append(torch.autograd.grad(value, point)[0])
    return torch.stack(rows)


def expected(gradients: Tensor, clip_norm: float) -> tuple[Tensor, int]:
    norms = gradients.norm(dim=1)
    factors = (clip_norm / norms).clamp(max=1.0)
    return factors @ gradients, int((norms > clip_norm).sum())


@pytest.mark.more
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}-{len(s[1])}")
@pytest.mark.parametrize("sizes", [SIZES, (6, 6, 6)], ids=["unequal", "equal"])
@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("max_floats", [1 << 20, 60], ids=["at once", "in chunks"])
def test_closed_form_is_what_autograd_says(
    shape: Any, sizes: Any, changes: bool, max_floats: int
) -> None:
    own = shards(*shape, sizes)
    x, other = points(mlp_dim(shape[1]), 3)
    previous = other if changes else None
    for scale in (1e-3 if changes else 1.0, float("inf")):
        found = own.clipped_sums(
            x, previous, torch.full((3,), scale, dtype=torch.float64), max_floats
        )
        for i in range(3):
            gradients = record_gradients(own, i, x[i])
            if changes:
                gradients = gradients - record_gradients(own, i, other[i])
            total, count = expected(gradients, scale)
            torch.testing.assert_close(found.sums[i], total, rtol=1e-9, atol=1e-12)
            assert found.shortened[i] == count


def test_changes_of_close_points_keep_their_digits() -> None:
    """The difference of two norms would cancel: at 1e-7 in float32 nothing would be left."""
    own = shards("squared", (5, 7, 1), "softplus")
    x, other = points(mlp_dim((5, 7, 1)), 3, step=1e-6)
    exact = own.clipped_sums(x, other, torch.full((3,), 1e-7, dtype=torch.float64), 1 << 20)
    single = replace(own, inputs=own.inputs.float(), targets=own.targets.float())
    found = single.clipped_sums(x.float(), other.float(), torch.full((3,), 1e-7), 1 << 20)
    assert bool((found.sums.norm(dim=1) <= own.sizes * 1.001e-7).all())
    assert bool((exact.shortened > 0).all())


def module() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    for parameter in net.parameters():
        parameter.data = torch.from_numpy(
            stream(3, "net", parameter.numel()).standard_normal(tuple(parameter.shape))
        )
    return net


def modules(sizes: tuple[int, ...] = (6, 9)) -> list[ModuleObjective]:
    random = stream(4, "modules")
    return [
        ModuleObjective(
            module(),
            torch.nn.functional.cross_entropy,
            torch.from_numpy(random.standard_normal((size, 5))),
            torch.from_numpy(random.integers(0, 3, size)),
        )
        for size in sizes
    ]


class Opaque(nn.Module):
    """A module of which nobody knows what it is made of."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def opaque(objectives: list[ModuleObjective]) -> list[ModuleObjective]:
    return [replace(o, module=Opaque(o.module)) for o in objectives]


class Plain:
    """An objective over records that knows nothing of privacy."""

    def __init__(self, inner: ModuleObjective) -> None:
        self._inner = inner
        self.dim, self.num_examples = inner.dim, inner.num_examples
        self.lower, self.upper = -float("inf"), float("inf")

    def minibatch(self, indices: Tensor) -> "Plain":
        return Plain(self._inner.minibatch(indices))

    def value(self, x: Tensor) -> Tensor:
        return self._inner.value(x)


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("max_floats", [1 << 20, 100])
def test_closed_mapped_and_looped_records_agree(changes: bool, max_floats: int) -> None:
    objectives = modules()
    x, other = points(objectives[0].dim, 2, step=0.1)
    norms = torch.tensor([0.5, 0.2], dtype=torch.float64)
    previous = other if changes else None
    looped, mapped, closed = (
        clipped_sums(cohort_of(same), x, previous, norms, max_floats=max_floats)
        for same in ([Plain(o) for o in objectives], opaque(objectives), objectives)
    )
    for short in (mapped, closed):
        torch.testing.assert_close(short.sums, looped.sums)
        assert torch.equal(short.shortened, looped.shortened)
    assert mapped.shortened.sum() > 0


@pytest.mark.parametrize("kind", [list, opaque])
def test_of_a_minibatch_its_records_alone_are_summed(kind: Any) -> None:
    objectives = kind(modules())
    drawn = torch.tensor([[4, 1, 2], [8, 0, 5]])
    x, previous = points(objectives[0].dim, 2)
    norms = torch.full((2,), 0.3, dtype=torch.float64)
    part = cohort_of(objectives).minibatch(drawn)
    alone = [cohort_of([o.minibatch(row)]) for o, row in zip(objectives, drawn, strict=True)]
    for before in (None, previous):
        found = clipped_sums(part, x, before, norms).sums
        for i, one in enumerate(alone):
            own = None if before is None else before[i : i + 1]
            wanted = clipped_sums(one, x[i : i + 1], own, norms[:1]).sums[0]
            torch.testing.assert_close(found[i], wanted)
    told = record_values(part, x.unsqueeze(1))
    assert [tuple(each.shape) for each in told] == [(1, 3), (1, 3)]


def test_without_clipping_the_sum_is_the_gradient_times_n() -> None:
    objectives = modules()
    x, _ = points(objectives[0].dim, 2)
    free = torch.full((2,), torch.inf).double()
    found = clipped_sums(cohort_of(objectives), x, None, free)
    for i, objective in enumerate(objectives):
        point = x[i].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective.value(point), point)
        torch.testing.assert_close(found.sums[i] / objective.num_examples, gradient)


def test_losses_of_records_average_to_the_value() -> None:
    objectives = modules()
    x = torch.stack([torch.stack(points(objectives[0].dim, 1)).flatten(0, 1)] * 2)
    for cohort in (cohort_of(objectives), cohort_of([Plain(o) for o in objectives])):
        told = record_values(cohort, x)
        assert [tuple(t.shape) for t in told] == [(2, 6), (2, 9)]
        means = torch.stack([t.mean(dim=1) for t in told])
        torch.testing.assert_close(means, cohort.value(x))


def test_a_client_that_raises_fails_alone() -> None:
    good, bad = modules((6, 6))

    class Raises(Plain):
        def minibatch(self, indices: Tensor) -> "Plain":
            raise ValueError("no disk")

    cohort = cohort_of([Plain(good), Raises(bad)])
    x, _ = points(good.dim, 2)
    found = clipped_sums(cohort, x, None, torch.ones(2).double())
    assert cohort.failures == {1: "ValueError: no disk"}
    assert bool(found.sums[0].isfinite().all())
    assert bool(found.sums[1].isnan().all())


def test_black_boxes_and_objectives_without_records_are_refused_with_a_remedy() -> None:
    box = cohort_of([TorchObjective(function=lambda x: x.square().sum(-1), dim=3)])
    with pytest.raises(ConfigError, match="needs objectives over records"):
        clipped_sums(box, torch.ones(1, 3), None, torch.ones(1))

    class Silent(Plain):
        def minibatch(self, indices: Tensor) -> "Silent":
            return self

        def value(self, x: Tensor) -> Tensor:
            return super().value(x).detach()

    silent = cohort_of([Silent(modules()[0])])
    x, _ = points(modules()[0].dim, 1)
    with pytest.raises(ConfigError, match=r"set client\.gradient=zeroth_order"):
        clipped_sums(silent, x, None, torch.ones(1).double())


@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_no_row_is_longer_than_its_clip_norm_and_short_ones_stay(seed: int, norm: float) -> None:
    rows = 10 * torch.from_numpy(stream(seed, "rows").standard_normal((6, 4)))
    rows[0] = 0
    found = clip_rows(rows, norm)
    lengths = found.sums.norm(dim=1)
    assert bool((lengths <= norm * (1 + 1e-12)).all())
    short = rows.norm(dim=1) <= norm
    assert torch.equal(found.sums[short], rows[short])
    assert torch.equal(found.shortened, (~short).double())


def test_a_record_that_is_not_finite_counts_as_zero_everywhere() -> None:
    """It neither makes its client fail nor moves the sum by more than the others may."""
    own = shards("squared", (5, 7, 1), "softplus")
    inputs, targets = own.inputs.clone(), own.targets.clone()
    inputs[0], targets[1] = torch.nan, torch.inf
    broken = replace(own, inputs=inputs, targets=targets)
    x, other = points(mlp_dim((5, 7, 1)), 3)
    norms = torch.full((3,), 0.1, dtype=torch.float64)
    for previous in (None, other):
        whole = own.clipped_sums(x, previous, norms, 1 << 20)
        found = broken.clipped_sums(x, previous, norms, 1 << 20)
        assert bool(found.sums.isfinite().all())
        assert float((found.sums[0] - whole.sums[0]).norm()) <= 2 * 0.1
        assert torch.equal(found.sums[1:], whole.sums[1:])
    objective = modules()[0]
    poisoned = replace(
        objective, inputs=objective.inputs.index_fill(0, torch.tensor([0]), torch.nan)
    )
    rest = replace(objective, inputs=objective.inputs[1:], targets=objective.targets[1:])
    sums = [
        clipped_sums(cohort_of([o]), points(o.dim, 1)[0], None, norms[:1]).sums
        for o in (poisoned, rest)
    ]
    torch.testing.assert_close(*sums)
    rows = clip_rows(torch.tensor([[torch.inf, 1.0], [3.0, 4.0]]), 1.0)
    assert rows.sums[0].tolist() == [0.0, 0.0]
    assert rows.sums[1].tolist() == pytest.approx([0.6, 0.8])


def test_a_clip_norm_of_zero_leaves_nothing_and_of_infinity_everything() -> None:
    norms = torch.tensor([0.0, 1.0, 5.0])
    assert shrink(norms, 0.0).tolist() == [0.0, 0.0, 0.0]
    assert shrink(norms, float("inf")).tolist() == [1.0, 1.0, 1.0]


def test_passes_are_kept_for_the_next_question_and_change_nothing() -> None:
    shape = SHAPES[0]
    x, other = points(mlp_dim(shape[1]), 3)
    norms = torch.ones(3).double()
    own, fresh = shards(*shape), shards(*shape)
    own.clipped_sums(other, None, norms, 1 << 20)
    kept = own.clipped_sums(x, other, norms, 1 << 20)
    again = fresh.clipped_sums(x, other, norms, 1 << 20)
    assert torch.equal(kept.sums, again.sums)


def test_a_memo_never_takes_one_data_set_for_another() -> None:
    shape = SHAPES[0]
    x, other = points(mlp_dim(shape[1]), 3)
    norms = torch.ones(3).double()
    own = shards(*shape)
    changed = replace(own, targets=own.targets + 1)
    assert changed.memo is own.memo
    first = own.clipped_sums(x, other, norms, 1 << 20).sums
    assert not torch.equal(changed.clipped_sums(x, other, norms, 1 << 20).sums, first)
    assert torch.equal(own.clipped_sums(x, other, norms, 1 << 20).sums, first)


def test_a_memo_keeps_no_more_than_it_may_and_forgets_old_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = []
    real = MLPBatches.passed

    def counted(self: MLPBatches, x: Tensor) -> Any:
        passes.append(len(x))
        return real(self, x)

    monkeypatch.setattr(MLPBatches, "passed", counted)
    shape = SHAPES[0]
    own = shards(*shape, (6, 6, 6))
    norms = torch.ones(3).double()
    trail = [points(mlp_dim(shape[1]), 3, step=0.1 * k)[1] for k in range(5)]
    for before, now in pairwise(trail):
        own.clipped_sums(now, before, norms, 1 << 20)
    assert len(passes) == 5, "one pass a new point"
    passes.clear()
    small = shards(*shape, (6, 6, 6))
    for before, now in pairwise(trail):
        small.clipped_sums(now, before, norms, 10)
    assert len(passes) > 8, "no room: computed again"
    assert small.memo._floats <= 10

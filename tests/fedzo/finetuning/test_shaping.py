"""Shaping of slopes and values: by hand, invariances, limits; acceptance; changed gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from module_nets import loss_of, net, numbers
from torch import nn

from fedzo.estimation.view import View
from fedzo.finetuning.changing import LowVariance, minor, newton_schulz, orthogonalize
from fedzo.finetuning.methods import plain, ranked
from fedzo.finetuning.shaping import Fitness, Ranking, Softmax, clipped, normalized, signed
from fedzo.finetuning.zeroth_order import ZerothOrder

VALUES = st.lists(st.integers(-50, 50), min_size=2, max_size=9, unique=True)


def slopes(scheme, values: list[float], mu: float = 0.5) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return scheme.slopes(torch.tensor([values], dtype=torch.float64), mu, None)[0]


def by_edges(values: list[float], best: int) -> torch.Tensor:
    """Return -m / E times each point's wins minus losses among the pairs that a ranking tells."""
    order = sorted(range(len(values)), key=values.__getitem__)
    weights, edges = torch.zeros(len(values)), 0
    for place, winner in enumerate(order[:best]):
        for loser in order[place + 1 :]:
            weights[winner] += 1
            weights[loser] -= 1
            edges += 1
    return -weights.double() * len(values) / edges


@given(values=VALUES, best=st.integers(1, 9))
def test_ranking_is_the_sum_over_pairs(values: list[float], best: int) -> None:
    best = min(best, len(values))
    found = slopes(Ranking(best), [float(v) for v in values])
    assert torch.allclose(found, by_edges(values, best))
    assert abs(float(found.sum())) < 1e-9


@given(values=VALUES)
def test_ranks_are_blind_to_what_keeps_the_order(values: list[float]) -> None:
    straight = [float(v) for v in values]
    bent = [math.atan(v) * 7 + 3 for v in straight]
    for scheme in (Ranking(), Ranking(2), Fitness()):
        assert torch.equal(slopes(scheme, straight), slopes(scheme, bent))


def test_two_points_of_which_one_is_better_are_a_comparison() -> None:
    assert slopes(Ranking(1), [3.0, 1.0]).tolist() == [2.0, -2.0]


def test_values_that_are_missing_rank_last() -> None:
    assert slopes(Fitness(), [math.nan, 1.0, 0.0]).tolist() == [0.5, 0.0, -0.5]


@given(values=VALUES, shift=st.floats(-5, 5))
def test_consensus_has_weights_of_sum_one_and_ignores_a_shift(
    values: list[float], shift: float
) -> None:
    m, alpha, mu = len(values), 0.7, 0.5
    found = slopes(Softmax(alpha), [float(v) for v in values], mu)
    shares = 1 / m - found * alpha * mu / m
    assert abs(float(shares.sum()) - 1) < 1e-9
    assert torch.allclose(shares, torch.softmax(-alpha * torch.tensor(values).double(), 0))
    assert torch.allclose(found, slopes(Softmax(alpha), [v + shift for v in values], mu))


def test_consensus_of_a_steep_softmax_is_the_best_point_and_of_a_flat_one_the_slope() -> None:
    values = [0.3, -0.2, 0.9]
    steep = slopes(Softmax(1e4), values) * (1e4 * 0.5 / 3)
    assert torch.allclose(1 / 3 - steep, torch.tensor([0.0, 1.0, 0.0]).double())
    flat = slopes(Softmax(1e-6), values)
    centered = (torch.tensor(values).double() - sum(values) / 3) / 0.5
    assert torch.allclose(flat, centered, atol=1e-5)


def test_consensus_goes_along_minus_the_gradient_of_a_linear_function() -> None:
    a = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    mu, alpha = 0.3, 1.0
    c = slopes(Softmax(alpha), (mu * u @ a).tolist(), mu)
    g = (c.unsqueeze(1) * u).mean(dim=0)
    assert torch.allclose(g, a, rtol=0.1)


def test_clip_sign_and_spread() -> None:
    c = torch.tensor([3.0, -0.5, math.nan], dtype=torch.float64)
    assert clipped(1.0)(c)[:2].tolist() == [1.0, -0.5]
    assert signed(c)[:2].tolist() == [1.0, -1.0]
    spread = normalized(c)
    assert torch.allclose(spread[:2].std(correction=0), torch.ones((), dtype=torch.float64))
    assert normalized(torch.ones(3)).tolist() == [1.0] * 3


def test_a_conservative_step_never_goes_up() -> None:
    module = net()
    optimizer = ZerothOrder(module, 0.3, method="zo_conservative")
    stayed = 0
    for _ in range(30):
        before, held = float(loss_of(module)().detach()), numbers(module)
        optimizer.step(loss_of(module))
        assert float(loss_of(module)().detach()) <= before
        stayed += torch.equal(held, numbers(module))
    assert 0 < stayed < 30


def test_line_search_of_ranks_never_goes_up_and_cares_for_order_alone() -> None:
    ways = []
    for bend in (lambda f: f, lambda f: f**3 * 10 + 4):
        module = net()
        optimizer = ZerothOrder(module, 1.0, method=ranked.ZORankSGD(num_directions=6))
        before = float(loss_of(module)().detach())
        for _ in range(10):
            optimizer.step(lambda: bend(loss_of(module)().double()))  # noqa: B023
            now = float(loss_of(module)().detach())
            assert now <= before
            before = now
        ways.append(numbers(module))
    assert torch.equal(*ways)


def test_signs_of_coefficients_and_of_numbers() -> None:
    module = net()
    before = numbers(module)
    ZerothOrder(module, 0.01, method=plain.ZOSign(elementwise=True)).step(loss_of(module))
    assert torch.allclose((numbers(module) - before).abs(), torch.tensor(0.01), atol=1e-6)


def test_momentum_by_replay_is_that_of_torch() -> None:
    module, other = net(), net()
    ours = ZerothOrder(module, 0.01, method=plain.ZOMomentum(momentum=0.5, window=40))
    plainly = ZerothOrder(other, 0.01, method="zo_sgd")
    torchs = torch.optim.SGD(other.parameters(), lr=0.01, momentum=0.5)
    for _ in range(12):
        ours.step(loss_of(module))
        held = numbers(other)
        plainly.step(loss_of(other))
        change, first = (held - numbers(other)) / 0.01, 0
        with torch.no_grad():
            for p in other.parameters():
                size = p.numel()
                p.copy_(held[first : first + size].view_as(p))
                p.grad = change[first : first + size].view_as(p)
                first += size
        torchs.step()
    assert torch.allclose(numbers(module), numbers(other), atol=1e-4)


def test_newton_schulz_makes_singular_values_alike_and_keeps_the_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 20), (20, 6)):
        low = torch.randn(shape[0], 3, generator=generator) @ torch.randn(
            3, shape[1], generator=generator
        )
        values = torch.linalg.svdvals(newton_schulz(low))
        assert values[:3].min() > 0.6
        assert values[:3].max() < 1.3
        assert values[3:].max() < 1e-3
    gradients = View.of_named({"b": torch.tensor([3.0, 4.0])})
    orthogonalize(gradients)
    assert torch.allclose(gradients.tensors[0], torch.tensor([0.6, 0.8]))


def test_directions_in_which_iterates_varied_least_are_taken_out() -> None:
    rows = torch.zeros(20, 4)
    rows[:, 1] = torch.linspace(0, 5, 20)
    rows[::2, 3] = 0.01
    assert torch.allclose(minor(rows, 0.99).abs(), torch.tensor([[0.0, 0.0, 0.0, 1.0]]), atol=1e-3)
    assert len(minor(rows[:, :3], 0.99)) == 0  # nothing varied little
    x = torch.zeros(4)
    change = LowVariance(View.of_named({"x": x}), period=6, kept=0.99, num_directions=2)
    for step in range(6):
        x[2] = float(step)
        x[0] = 0.01 * (step % 2)
        gradients = View.of_named({"x": torch.ones(4)})
        change(gradients)
    left = torch.tensor([0.0, 1.0, 1.0, 1.0]) / math.sqrt((3 + 2 - 1) / 2)
    assert torch.allclose(gradients.tensors[0], left, atol=0.02)


def test_zoodip_gets_as_far_as_with_directions_that_it_has_not_tried() -> None:
    """Taking out all but the strong components leaves fewer of them every period, and stalls."""
    x = nn.Parameter(torch.zeros(100))
    optimizer = ZerothOrder([x], 0.02, method="zoodip", settings={"period": 16})
    for _ in range(800):
        optimizer.step(lambda: (x - 1).square().sum())
    assert float((x - 1).square().sum()) < 5


@pytest.mark.parametrize("limit", [0.0, -1.0])
def test_a_clip_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="clip"):
        clipped(limit)


def test_fitness_of_equal_values_is_equal_and_of_none_is_none() -> None:
    assert slopes(Fitness(), [1.0, 1.0, 1.0]).tolist() == [0, 0, 0]
    assert slopes(Fitness(), [2.0, 1.0, 2.0, 5.0]).tolist() == pytest.approx([0, -0.5, 0, 0.5])
    assert slopes(Fitness(), [math.nan, math.nan]).tolist() == [0, 0]
    assert slopes(Fitness(), [math.nan, 1.0, math.inf]).tolist() == [0.25, -0.5, 0.25]


@pytest.mark.parametrize("scheme", [Fitness(), Ranking(), Softmax()])
def test_losses_that_are_nowhere_finite_move_nothing(scheme) -> None:  # type: ignore[no-untyped-def]
    names = {Fitness: "evolution", Ranking: "rank_sgd", Softmax: "consensus"}
    module = net()
    before = numbers(module)
    optimizer = ZerothOrder(module, 0.1, method=names[type(scheme)])
    assert math.isnan(optimizer.step(lambda: loss_of(module)() * math.nan))
    assert torch.equal(numbers(module), before)

"""Estimates against autograd and by hand: tangents, snapshots, curvature, recovery, coordinates."""

import contextlib
import math

import pytest
import torch
from module_nets import INPUTS, TARGETS, loss_of, net, numbers
from torch import nn

from fedzo.errors import ConfigError, ObjectiveError
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.keys import Key
from fedzo.estimation.schemes import SCHEMES
from fedzo.estimation.view import View
from fedzo.finetuning.asking import Asked
from fedzo.finetuning.curvature import HessianInformed
from fedzo.finetuning.deepzero import SparseCoordinates, kept_shares
from fedzo.finetuning.guided import Guided
from fedzo.finetuning.recovery import LeastSquares, SparseRecovery, cosamp, products
from fedzo.finetuning.slope_process import SlopeProcess
from fedzo.finetuning.variance_reduced import VarianceReduced
from fedzo.finetuning.zeroth_order import ZerothOrder


def exact(module: nn.Module) -> torch.Tensor:
    """Return the gradient of autograd."""
    found = torch.autograd.grad(loss_of(module)(), list(module.parameters()))
    return torch.cat([g.reshape(-1) for g in found])


def place_of(x: torch.Tensor, ask) -> tuple[View, Asked]:  # type: ignore[no-untyped-def]
    view = View.of_named({"x": x})
    return view, Asked(InPlace(view, lambda: ask(x)))


def test_exact_slopes_are_those_of_autograd_and_the_limit_of_differences() -> None:
    module = net().double()
    module_loss = lambda: torch.nn.functional.cross_entropy(module(inputs), targets)  # noqa: E731

    inputs, targets = INPUTS.double(), TARGETS
    place = InPlace(View.of_module(module), module_loss, module)
    u = Key(seed=2, law="gaussian")
    value, slope = place.tangent(u)
    g = torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(module_loss(), list(module.parameters()))]
    )
    assert math.isclose(slope, float(g @ u.draw(0, len(g), dtype=torch.float64)), rel_tol=1e-9)
    errors = []
    for mu in (1e-2, 1e-3):
        plus, minus = place.values([u], SCHEMES["central"], mu).tolist()
        errors.append(abs((plus - minus) / (2 * mu) - slope))
    assert errors[1] < errors[0] / 50
    assert math.isclose(value, float(module_loss().detach()))
    assert all(isinstance(p, nn.Parameter) for p in module.parameters())


@pytest.mark.parametrize("name", ["cge"])
def test_coordinate_wise_estimates_are_the_gradient(name: str) -> None:
    module = net().double()

    view = View.of_module(module)

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(module(INPUTS.double()), TARGETS)

    place = Asked(InPlace(view, loss, module))
    finder = SparseCoordinates(
        view, seed=0, mu=1e-4, share=1.0, refresh=1, num_directions=1, scheme=SCHEMES["central"]
    )
    found = finder.find(place, 0).estimate.vector(view.total, dtype=torch.float64)
    g = torch.autograd.grad(loss(), list(module.parameters()))
    assert torch.allclose(found, torch.cat([p.reshape(-1) for p in g]), atol=1e-8)


def test_slopes_of_a_gaussian_process_are_told_by_inner_products_alone() -> None:
    """Against the derivatives of the kernel by autograd, with every vector written out."""
    x, length, ridge = torch.zeros(5, dtype=torch.float64), 1.3, 1e-2
    f = lambda x: (x.sin() * torch.arange(1.0, 6)).sum()  # noqa: E731
    view, place = place_of(x, f)
    finder = SlopeProcess(
        view, seed=3, mu=1e-6, num_directions=2, older=2, ridge=ridge, lengthscale=length
    )
    where = list[torch.Tensor]()
    for step in range(4):
        found = finder.find(place, step).estimate
        where += [x.clone()] * 2
        if step < 3:
            x += 0.4 * torch.tensor([1.0, -1, 0.5, 0.2, -0.3]).roll(step)
    along = [key.draw(0, 5, dtype=torch.float64) for key in found.keys[:6]]
    where, rows = where[-6:], range(6)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return length**2 * (-(a - b).square().sum() / (2 * length**2)).exp()

    def mixed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        inner = torch.func.grad(kernel, argnums=1)
        return torch.func.jacrev(inner, argnums=0)(a, b).T

    covariance = torch.stack(
        [torch.stack([along[i] @ mixed(where[i], where[j]) @ along[j] for j in rows]) for i in rows]
    )
    covariance += ridge * covariance.diagonal().mean() * torch.eye(6)
    slopes = torch.stack([torch.func.grad(f)(at) @ u for at, u in zip(where, along, strict=True)])
    weights = torch.linalg.solve(covariance, slopes)
    wanted = sum(weights[j] * mixed(x, where[j]) @ along[j] for j in rows)
    torch.testing.assert_close(found.vector(5, dtype=torch.float64), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", ["gp", "relizo"])
def test_reused_slopes_are_refused_where_they_mean_nothing(method: str) -> None:
    older = {"gp": "older", "relizo": "window"}[method]
    for name, value in ((older, -1), ("ridge", 0.0)):
        with pytest.raises(ConfigError, match=f"{name}={value}"):
            ZerothOrder(net(), 0.1, method=method, settings={name: value})


@pytest.mark.parametrize("method", ["gp", "relizo"])
def test_slopes_that_are_missing_are_left_out(method: str) -> None:
    """One answer of five is not finite; later none is, and x stays."""
    module, calls = net(), []

    def closure() -> torch.Tensor:
        calls.append(1)
        lost = len(calls) == 3 or len(calls) > 10
        return loss_of(module)() * (math.nan if lost else 1.0)

    optimizer = ZerothOrder(module, 0.5, method=method)
    optimizer.step(closure)
    other = net()
    whole = ZerothOrder(other, 0.5, method=method)
    whole.step(loss_of(other))
    assert torch.dist(numbers(module), numbers(net())) < torch.dist(numbers(other), numbers(net()))
    optimizer.step(closure)
    before = numbers(module)
    optimizer.step(closure)
    assert torch.equal(before, numbers(module))


def test_numbers_that_overflow_leave_x_where_it_is() -> None:
    module = net().double()
    optimizer = ZerothOrder(module, 0.5, method="gp")
    inputs = INPUTS.double()
    optimizer.step(lambda: 1e200 * nn.functional.cross_entropy(module(inputs), TARGETS))
    optimizer.step(lambda: nn.functional.cross_entropy(module(inputs), TARGETS))
    again = net().double()
    ZerothOrder(again, 0.5, method="gp").replay(optimizer.log)
    assert torch.equal(numbers(module), numbers(again))


def test_without_older_steps_a_gaussian_process_is_least_squares() -> None:
    vectors = []
    for method, name in (("gp", "older"), ("relizo", "window")):
        module = net()
        ZerothOrder(module, 0.5, method=method, settings={name: 0}).step(loss_of(module))
        vectors.append(numbers(module))
    torch.testing.assert_close(*vectors, atol=1e-5, rtol=0)


def test_grasp_gives_tensors_their_share_of_the_highest_scores() -> None:
    view = View.of_named({"a": torch.zeros(4), "b": torch.zeros(6)})
    scores = torch.tensor([9.0, 8, 7, 0, 6, 5, 0, 0, 0, 0])
    assert kept_shares(view, scores, 0.5) == {"a": 0.75, "b": pytest.approx(1 / 3)}
    assert kept_shares(view, torch.zeros(10), 0.2) == {
        "a": pytest.approx(0.2),
        "b": pytest.approx(0.2),
    }


def test_deepzero_at_zero_asks_its_share() -> None:
    latent = nn.Parameter(torch.zeros(200))
    optimizer = ZerothOrder([latent], 0.1, method="deepzero", settings={"share": 0.1})
    optimizer.step(lambda: (latent - 1).square().sum())
    before = optimizer.spent.forwards
    optimizer.step(lambda: (latent - 1).square().sum())
    assert optimizer.spent.forwards - before < 45


@pytest.mark.parametrize("method", ["deepzero", "zo_conservative"])
@pytest.mark.parametrize("fails", range(2, 14, 3))
def test_a_step_that_failed_is_taken_anew_to_the_same_bits(method: str, fails: int) -> None:
    settings = {"estimator": "residual"} if method == "zo_conservative" else {"num_directions": 3}

    def steps(fails: int) -> tuple[nn.Sequential, ZerothOrder]:
        module = net()
        optimizer = ZerothOrder(module, 0.01, method=method, settings=settings)
        calls = iter(range(10_000))

        def closure() -> torch.Tensor:
            if next(calls) == fails:
                raise OSError("gone")
            return loss_of(module)()

        while optimizer.steps < 4:
            with contextlib.suppress(OSError):
                optimizer.step(closure)
        return module, optimizer

    whole, _ = steps(10_000)
    module, optimizer = steps(fails)
    assert torch.equal(numbers(module), numbers(whole))
    again = net()
    ZerothOrder(again, 0.01, method=method, settings=settings).replay(optimizer.log)
    assert torch.equal(numbers(again), numbers(whole))


def test_a_loss_on_all_examples_counts_for_its_step_alone() -> None:
    module = net()
    optimizer = ZerothOrder(module, 0.01, method="mezo_svrg", settings={"period": 2})
    optimizer.step(loss_of(module), full=loss_of(module))
    optimizer.step(loss_of(module))
    with pytest.raises(ConfigError, match="needs the loss on all examples"):
        optimizer.step(loss_of(module))


def test_deepzero_asks_the_tensor_that_carries_the_gradient() -> None:
    """Without the numbers of a, the gradient would be smaller, without those of b larger."""
    a, b = nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(7))
    settings = {"share": 0.5, "num_directions": 400}
    optimizer = ZerothOrder([a, b], 0.01, method="deepzero", settings=settings)
    optimizer.step(lambda: 5 * a.square().sum() + 0.5 * (b - 3).square().sum())
    finder = optimizer._recipe.finder
    assert isinstance(finder, SparseCoordinates)
    assert finder.ratios is not None
    first, second = finder.ratios.values()
    assert first > 0.8 > 0.2 > second


def test_deepzero_asks_a_share_of_the_axes_and_moves_nothing_else() -> None:
    module = net()
    optimizer = ZerothOrder(module, 0.01, method="deepzero")
    optimizer.step(loss_of(module))
    finder = optimizer._recipe.finder
    assert isinstance(finder, SparseCoordinates)
    mask = finder._mask(0)
    assert optimizer.spent.forwards == 2 * 193 + 1 + int(mask.sum())
    changed = numbers(module) != numbers(net())
    assert not changed[~mask].any()
    assert (
        abs(
            sum(
                finder.ratios[n] * t.numel()
                for n, t in zip(  # type: ignore[index]
                    optimizer.view.names, optimizer.view.tensors, strict=True
                )
            )
            - 8.3
        )
        < 1
    )


def test_at_its_snapshot_the_correction_is_zero_and_later_it_is_exact_for_a_line() -> None:
    a = torch.linspace(-1, 1, 9)
    x = torch.ones(9)
    view, place = place_of(x, lambda x: x @ a)
    finder = VarianceReduced(view, seed=0, mu=0.5, period=10, num_directions=3)
    finder.full = lambda: x @ a
    first = finder.find(place, 0).estimate
    again = finder.find(place, 1).estimate
    assert float(again.coefficients[0]) == 0.0
    assert torch.equal(again.coefficients[1:], first.coefficients)
    x += 1.0
    moved = finder.find(place, 2).estimate
    assert abs(float(moved.coefficients[0])) < 1e-5


def test_curvature_grows_where_the_objective_bends() -> None:
    h = torch.tensor([100.0, 1.0, 1.0, 1.0])
    x = torch.zeros(4)
    view, place = place_of(x, lambda x: (h * x * x).sum() / 2)
    finder = HessianInformed(view, seed=0, mu=1e-2, rate=0.01)
    for step in range(300):
        finder.find(place, step)
    assert finder.factors[0] < finder.factors[1:].min()
    held = finder.factors.clone()
    finder.find(Asked(InPlace(view, lambda: x.sum() * math.nan)), 300)
    assert torch.equal(held, finder.factors)


def test_least_squares_has_the_slopes_that_were_told() -> None:
    a = torch.linspace(-1, 1, 12)
    x = torch.zeros(12)
    view, place = place_of(x, lambda x: x @ a)
    finder = LeastSquares(view, seed=0, mu=0.5, num_directions=4, window=8, ridge=1e-9)
    for step in range(3):
        g = finder.find(place, step).estimate.vector(12)
    assert torch.allclose(g, a, atol=1e-2)  # twelve slopes of a line determine it


def test_products_of_directions() -> None:
    view = View.of_named({"x": torch.zeros(1000)})
    keys = [Key(seed=0, direction=i) for i in range(3)]
    rows = torch.stack([key.draw(0, 1000) for key in keys]).double()
    assert torch.equal(products(keys, view), rows @ rows.T)


def test_sparse_gradients_are_recovered_from_few_slopes() -> None:
    g = torch.zeros(200, dtype=torch.float64)
    g[[3, 77, 150]] = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    x = torch.zeros(200, dtype=torch.float64)
    view, place = place_of(x, lambda x: x @ g)
    finder = SparseRecovery(view, seed=0, mu=0.1, num_directions=40, sparsity=3)
    found = finder.find(place, 0).estimate.vector(200, dtype=torch.float64)
    assert torch.allclose(found, g, atol=1e-8)
    assert len(place.told) == 41
    z = torch.eye(4, dtype=torch.float64)
    assert cosamp(z, torch.tensor([1.0, 0, 5, 0]).double(), 1).tolist() == [0, 0, 5, 0]
    with pytest.raises(ConfigError, match="num_directions=64 must be at most"):
        SparseRecovery(
            View.of_named({"x": torch.empty(1 << 23, device="meta")}),
            seed=0, mu=0.1, num_directions=64, sparsity=3,
        )  # fmt: skip


@pytest.mark.more
def test_guided_directions_lean_to_past_estimates_at_the_same_length() -> None:
    a = torch.ones(50)
    x = torch.zeros(50)
    view, place = place_of(x, lambda x: x @ a)
    finder = Guided(view, seed=0, mu=0.1, num_directions=20, k=2, alpha=0.5)
    for step in range(2):
        finder.find(place, step)
    basis = torch.linalg.qr(torch.stack(list(finder._held), dim=1)).Q
    rows = torch.stack([u.draw(0, 50) for u in finder.directions(5, 400)])
    inside = (rows @ basis).square().sum(dim=1).mean()
    assert abs(float(inside) / (0.5 * 50 + 0.5 * 2) - 1) < 0.3
    assert abs(float(rows.square().sum(dim=1).mean()) / 50 - 1) < 0.2


def test_guided_directions_have_their_covariance_in_a_part_of_a_module() -> None:
    a = torch.linspace(-1, 1, 8)
    tensors = {"other": torch.zeros(400), "x": torch.zeros(8)}
    view = View.of_named(tensors).select("x")
    finder = Guided(view, seed=0, mu=0.1, num_directions=20, k=2, alpha=0.2)
    place = Asked(InPlace(view, lambda: tensors["x"] @ a))
    for step in range(2):
        finder.find(place, step)
    rows = torch.stack([u.draw(400, 408) for u in finder.directions(5, 4000)]).double()
    values = torch.linalg.eigvalsh(rows.T @ rows / len(rows))
    law = torch.tensor([0.2] * 6 + [0.2 + 0.8 * 8 / 2] * 2, dtype=torch.float64)
    torch.testing.assert_close(values, law, rtol=0.15, atol=0)


@pytest.mark.more
@pytest.mark.parametrize("name", ["cge", "fzoo", "mezo", "lozo", "block_zo", "hizoo", "rank_sgd"])
def test_asked_at_once_a_step_is_the_same_but_for_rounding(name: str) -> None:
    ways = []
    for stacked in (False, True):
        module = net().double()
        inputs = INPUTS.double()
        optimizer = ZerothOrder(module, 0.02, method=name, stacked=stacked)
        for _ in range(3):
            optimizer.step(lambda: nn.functional.cross_entropy(module(inputs), TARGETS))  # noqa: B023
        ways.append((numbers(module), optimizer.spent.forwards, optimizer.log))
    assert torch.allclose(ways[0][0], ways[1][0], atol=1e-5)
    assert ways[0][1] == ways[1][1]
    again = net().double()
    ZerothOrder(again, 0.02, method=name).replay(ways[1][2])
    assert torch.equal(numbers(again), ways[1][0])


@pytest.mark.parametrize("way", ["stacked", "forward_gradient"])
def test_parameters_that_are_read_beside_the_module_are_refused(way: str) -> None:
    module = net()
    held = [*module.parameters()]
    penalized = lambda: loss_of(module)() + sum(p.square().sum() for p in held)  # noqa: E731
    named = {"method": way} if way == "forward_gradient" else {"method": "mezo", "stacked": True}
    optimizer = ZerothOrder(module, 0.02, **named)  # type: ignore[arg-type]
    with pytest.raises(ObjectiveError, match="otherwise than through the module"):
        optimizer.step(penalized)
    assert torch.equal(numbers(module), numbers(net()))

    for p in held:
        p.grad = torch.ones_like(p)

    def shapes_alone() -> torch.Tensor:
        optimizer.zero_grad()
        size = sum(p.numel() * (p.device.type == "cpu") for p in held)
        none = sum(torch.zeros_like(p).sum() + p.new_ones(1).sum() for p in held)
        return loss_of(module)() * torch.tensor(size / 83).to(held[0]) + 0 * none

    optimizer.step(shapes_alone)
    assert all(p.grad is None for p in held)
    assert not torch.equal(numbers(module), numbers(net()))


@pytest.mark.parametrize("method", ["fzoo", "relizo", "mezo", "rank_sgd"])
def test_losses_asked_at_once_have_one_number(method: str) -> None:
    plain, shaped = net(), net()
    for module, shape in ((plain, ()), (shaped, (1, 1))):
        optimizer = ZerothOrder(module, 0.02, method=method, stacked=True)
        optimizer.step(lambda: loss_of(module)().reshape(shape))  # noqa: B023
    assert torch.equal(numbers(plain), numbers(shaped))
    optimizer = ZerothOrder(net(), 0.02, method=method, stacked=True)
    for make, said in (
        (lambda loss: loss.expand(3), "the loss is 3 numbers"),
        (lambda loss: loss * 1j, "the loss is complex64, and is to be a real number"),
    ):
        with pytest.raises(ObjectiveError, match=said):
            optimizer.step(lambda: make(loss_of(optimizer.module)()))  # type: ignore[arg-type]  # noqa: B023


def test_what_cannot_be_asked_at_once_says_so() -> None:
    module = net()
    optimizer = ZerothOrder(module, 0.02, method="fzoo", stacked=True)
    with pytest.raises(ObjectiveError, match="stacked=True"):
        optimizer.step(lambda: torch.tensor(float(loss_of(module)())))
    assert torch.equal(numbers(module), numbers(net()))
    with pytest.raises(ConfigError, match="needs the module"):
        ZerothOrder(module.parameters(), 0.1, method="fzoo", stacked=True).step(loss_of(module))

"""Difference schemes: exact cases, orders of error, replay from key and scalars."""

import pytest
import torch

from fedzo import TorchObjective, federate
from fedzo.estimation.directions import DIRECTION_KINDS, direction_scale, sample_cohort_directions
from fedzo.estimation.schemes import (
    SCHEMES,
    combine,
    estimator_scale,
    gradient_coefficients,
)
from fedzo.randomness import streams

D, N = 7, 3
X = torch.linspace(-1, 1, N * D, dtype=torch.float64).reshape(N, D)
A = torch.linspace(0.5, 2, D, dtype=torch.float64)


def linear(x: torch.Tensor) -> torch.Tensor:
    return x @ A + 3


def wavy(x: torch.Tensor) -> torch.Tensor:
    return x.sin().sum(-1)


def estimate(name: str, kind: str, f, mu: float, m: int = D, seed: int = 0, memory=None, x=X):  # type: ignore[no-untyped-def]
    scheme, n = SCHEMES[name], len(x)
    if name == "coordinate":
        u = torch.eye(D, dtype=X.dtype).expand(n, D, D)
    else:
        u = sample_cohort_directions(kind, m, D, generators=streams(seed, "u", clients=range(n)))
    values = f(scheme.points(x, u, mu))
    slopes = scheme.slopes(values, mu, memory)
    coefficients = gradient_coefficients(slopes, estimator_scale(SCHEMES[name], kind, D))
    return combine(coefficients, u), slopes, u, values


@pytest.mark.parametrize("kind", DIRECTION_KINDS)
@pytest.mark.parametrize("name", ["forward", "central"])
def test_slopes_of_a_linear_function_are_exact(name: str, kind: str) -> None:
    _, slopes, u, _ = estimate(name, kind, linear, 0.1)
    assert torch.allclose(slopes, u @ A, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("forward", "orthogonal"), ("central", "coordinate"), ("coordinate", "gaussian")],
)
def test_a_full_basis_recovers_a_linear_gradient(name: str, kind: str) -> None:
    g, *_ = estimate(name, kind, linear, 0.01)
    assert torch.allclose(g, A.expand(N, D), atol=1e-9)


def test_central_differences_are_exact_for_quadratics_at_any_radius() -> None:
    h = torch.diag(A) + 0.1
    g, *_ = estimate("coordinate", "gaussian", lambda x: ((x @ h) * x).sum(-1), mu=5.0)
    assert torch.allclose(g, 2 * X @ h, atol=1e-8)


def test_forward_difference_of_a_quadratic_is_off_by_half_mu_curvature() -> None:
    _, slopes, u, _ = estimate("forward", "gaussian", lambda x: x.square().sum(-1), mu=0.3)
    expected = 2 * (u @ X.unsqueeze(-1)).squeeze(-1) + 0.3 * u.square().sum(-1)
    assert torch.allclose(slopes, expected, atol=1e-9)


@pytest.mark.parametrize(("name", "order"), [("forward", 1), ("central", 2)])
def test_order_of_the_error_in_mu(name: str, order: int) -> None:
    """By hand: error ratio 10^order for a radius ten times smaller."""
    errors = []
    for mu in (1e-1, 1e-2):
        _, slopes, u, _ = estimate(name, "gaussian", wavy, mu, m=5)
        exact = (u @ X.cos().unsqueeze(-1)).squeeze(-1)
        errors.append(float((slopes - exact).norm()))
    assert errors[0] / errors[1] == pytest.approx(10**order, rel=0.25)


@pytest.mark.parametrize("kind", DIRECTION_KINDS)
def test_the_mean_over_keys_is_the_gradient(kind: str) -> None:
    trials = 600  # clients of one cohort, each of which draws for itself
    points = X.expand(trials, N, D).reshape(-1, D)
    gs = estimate("central", kind, wavy, 1e-3, m=3, x=points)[0].reshape(trials, N, D)
    error = (gs.mean(0) - X.cos()).abs()
    assert (error < 5 * gs.std(0) / trials**0.5).all()


def test_residual_compares_with_the_step_before() -> None:
    first, slopes, _, values = estimate("residual", "gaussian", linear, 0.1, m=4)
    assert torch.equal(first, torch.zeros_like(first))
    assert torch.equal(slopes, torch.zeros_like(slopes))
    _, slopes, _, now = estimate("residual", "gaussian", linear, 0.1, m=4, seed=1, memory=values)
    assert torch.allclose(slopes, (now - values) / 0.1)


@pytest.mark.more
@pytest.mark.parametrize("kind", DIRECTION_KINDS)
def test_residual_is_unbiased_at_rest(kind: str) -> None:
    """With x unmoved, E[(f(x + mu u) - f(x + mu v)) u] / mu = grad f for a linear f."""
    trials = 1500  # clients of one cohort, each of which draws for itself
    points = X.expand(trials, N, D).reshape(-1, D)
    memory = estimate("residual", kind, linear, 0.1, m=1, seed=10**6, x=points)[3]
    found = estimate("residual", kind, linear, 0.1, m=1, memory=memory, x=points)[0]
    gs = found.reshape(trials, N, D)
    assert ((gs.mean(0) - A).abs() < 5 * gs.std(0) / trials**0.5).all()


@pytest.mark.parametrize("kind", DIRECTION_KINDS)
def test_key_and_scalars_replay_the_gradient_bit_for_bit(kind: str) -> None:
    g, slopes, _, _ = estimate("forward", kind, wavy, 0.01, m=4, seed=5)
    scalars = gradient_coefficients(slopes, direction_scale(kind, D))
    again = sample_cohort_directions(kind, 4, D, generators=streams(5, "u", clients=range(N)))
    assert torch.equal(g, combine(scalars, again))


@pytest.mark.parametrize(
    ("name", "queries"), [("forward", 5), ("central", 8), ("residual", 4), ("coordinate", 8)]
)
def test_queries_are_what_points_asks(name: str, queries: int) -> None:
    scheme = SCHEMES[name]
    u = torch.ones(N, 4, D, dtype=X.dtype)
    assert scheme.num_queries(4) == queries == scheme.points(X, u, 0.1).shape[1]


def test_a_missing_slope_leaves_its_direction_out_and_an_overflow_does_not() -> None:
    nan, inf = torch.nan, torch.inf
    slopes = torch.tensor([[2.0, nan, 4.0], [nan, nan, nan], [1.0, 2.0, inf]])
    expected = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [1 / 3, 2 / 3, inf]])
    assert torch.equal(gradient_coefficients(slopes, 1.0), expected)


def test_a_partial_derivative_that_is_missing_changes_no_other() -> None:
    slopes = torch.tensor([[2.0, torch.nan, 4.0, 6.0]])
    found = gradient_coefficients(slopes, 4.0, axes=True)
    assert found.tolist() == [[2.0, 0.0, 4.0, 6.0]]


def test_a_run_along_the_axes_skips_a_coordinate_alone() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return (x @ x.new_tensor([1.0, 2.0, 3.0, 4.0])).where(x[..., 0] <= 0.5, torch.nan)

    settings = {
        "client.estimator": "coordinate",
        "client.mu": 0.05,
        "client.optimizer": "sgd",
        "client.non_finite": "skip",
        "strategy.local_steps": 1,
        "strategy.local_lr": 1.0,
    }
    start = torch.tensor([0.49, 0.0, 0.0, 0.0])
    result = federate(
        lambda client: TorchObjective(function=f, dim=4),
        num_clients=1,
        num_rounds=1,
        initial_x=start,
        settings=settings,
    )
    moved = start - torch.as_tensor(result.x)
    torch.testing.assert_close(
        moved.double(), torch.tensor([0.0, 2.0, 3.0, 4.0]).double(), rtol=1e-5, atol=1e-5
    )

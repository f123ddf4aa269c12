"""The posterior of slopes against naive conditioning in loops, and its limits."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from fedzo.randomness import stream
from fedzo.surrogates.kernels import KERNELS, KernelName
from fedzo.surrogates.slope_geometry import centered, geometry
from fedzo.surrogates.slope_posterior import condition, explained_variance, fit, log_evidence
from fedzo.surrogates.slopes import SlopePrior, SlopeRows, join_rows, rows_between

D, N, R = 3, 4, 9
OWNERS = [[0, 1, 2, 3], [0], [2, 3], [1], [0], [0, 1, 2, 3], [0, 2, 3], [3], [1, 2]]
CENTER = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
EYE = torch.eye(D, dtype=torch.float64)
RICH = {"rho": 1.7, "curvature": 0.6, "noise": 0.02}
PRIORS = [
    SlopePrior(kernel=kernel, lengthscale=1.4, **extra)
    for kernel in KERNELS
    for extra in ({}, RICH)
]
every_prior = pytest.mark.parametrize("prior", PRIORS, ids=lambda p: f"{p.kernel}-{p.rho}")


def normals(*shape: int, key: str, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(stream(seed, key).standard_normal(shape))


def table(seed: int = 0) -> SlopeRows:
    """Return rows between seven points, so that some have noise in common."""
    places, order = normals(7, D, key="places", seed=seed), torch.arange(R)
    start, end = order // 3, 3 + order % 4
    return rows_between(
        places[start],
        places[end],
        normals(R, key="change", seed=seed),
        owners=torch.tensor([o + [-1] * (N - len(o)) for o in OWNERS]),
        start=start,
        end=end,
    )


def everybody(midpoint: torch.Tensor, direction: torch.Tensor, slope: torch.Tensor) -> SlopeRows:
    """Return rows of unit length that belong to all clients."""
    half, ids = direction / 2, torch.arange(len(slope))
    owners = torch.arange(N).expand(len(slope), N)
    return rows_between(
        midpoint - half, midpoint + half, slope, owners=owners, start=2 * ids, end=2 * ids + 1
    )


def k0(prior: SlopePrior, m, u, n, v, center=CENTER) -> float:  # type: ignore[no-untyped-def]
    """Return cov(<u, grad F(m)>, <v, grad F(n)>) by hand, in units of the one at m = n, u = v."""
    offset, square = m - n, prior.lengthscale**2
    t, both = float(offset @ offset) / square, float((u @ offset) * (v @ offset)) / square
    if prior.kernel == "squared_exponential":
        value = (float(u @ v) - both) * 2.718281828459045 ** (-t / 2)
    elif prior.kernel == "matern52":
        s = (5 * t) ** 0.5
        value = ((1 + s) * float(u @ v) - 5 * both) * 2.718281828459045 ** (-s)
    else:
        value = float(u @ v) / (1 + t / 2) ** 2 - 2 * both / (1 + t / 2) ** 3
    return value + prior.curvature**2 * float(((m - center) @ u) * ((n - center) @ v))


def naive(prior: SlopePrior, rows: SlopeRows, x: torch.Tensor, center=CENTER):  # type: ignore[no-untyped-def]
    """Return the covariance of the rows and theirs with grad F(x), entry by entry."""
    full = 1e-6 * torch.eye(len(rows), dtype=torch.float64)
    cross = torch.zeros(len(rows), D, dtype=torch.float64)
    for r in range(len(rows)):
        m, u = rows.midpoint[r], rows.direction[r]
        for j in range(D):
            cross[r, j] = k0(prior, m, u, x, EYE[j], center) / (1 + prior.rho)
        for q in range(len(rows)):
            clients = noise = 0.0
            for i in OWNERS[r]:
                for j in OWNERS[q]:
                    own = prior.rho if i == j else -prior.rho / (N - 1)
                    share = 1 / len(OWNERS[r]) / len(OWNERS[q])
                    clients += share * (1 + own) / (1 + prior.rho)
                    noise += share * (i == j)
            ends = [(rows.end, 1), (rows.start, -1)]
            shared = sum(s * t * int(a[r] == b[q]) for a, s in ends for b, t in ends)
            noise *= prior.noise * shared / float(rows.length[r] * rows.length[q])
            full[r, q] += clients * k0(prior, m, u, rows.midpoint[q], rows.direction[q], center)
            full[r, q] += noise
    return full, cross


@every_prior
def test_the_gradient_is_the_conditional_mean(prior: SlopePrior) -> None:
    rows, x = table(), normals(4, D, key="x")
    ours = condition(prior, centered(rows, CENTER), N).gradient(x)
    for q in range(4):
        full, cross = naive(prior, rows, x[q])
        expected = cross.T @ torch.linalg.solve(full, rows.slope)
        assert (ours[q] - expected).norm() < 1e-4 * expected.norm()


def told_of(prior: SlopePrior, rows: SlopeRows, x: torch.Tensor) -> float:
    seen = centered(rows, x)
    return explained_variance(prior, seen, geometry(seen, seen), N)


@every_prior
def test_explained_variance_is_the_reduction_of_the_trace(prior: SlopePrior) -> None:
    rows, [x] = table(), normals(1, D, key="x")
    full, cross = naive(prior, rows, x, center=x)
    expected = float((cross.T @ torch.linalg.solve(full, cross)).trace())
    assert told_of(prior, rows, x) == pytest.approx(expected, rel=1e-4)


@every_prior
@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_more_rows_explain_more_but_never_all(prior: SlopePrior, seed: int) -> None:
    rows, [x] = table(seed), normals(1, D, key="x", seed=seed)
    told = [told_of(prior, rows.take(slice(k)), x) for k in range(1, R + 1)]
    assert told[0] >= 0
    assert all(less <= more + 1e-5 for less, more in itertools.pairwise(told))
    assert told[-1] <= D / (1 + prior.rho)


@every_prior
def test_the_mean_of_surrogates_is_the_surrogate_of_the_mean(prior: SlopePrior) -> None:
    rows, x = table(), normals(4, D, key="x")
    slopes = normals(5, R, key="slopes")
    of = [condition(prior, centered(replace(rows, slope=s), CENTER), 1).gradient(x) for s in slopes]
    mean = condition(prior, centered(replace(rows, slope=slopes.mean(0)), CENTER), 1).gradient(x)
    assert torch.allclose(torch.stack(of).mean(0), mean, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=10)
@given(rho=st.floats(0.01, 100))
def test_what_all_clients_say_in_common_needs_no_rho(kernel: KernelName, rho: float) -> None:
    x = normals(4, D, key="x")
    rows = everybody(normals(5, D, key="m"), normals(5, D, key="u"), normals(5, key="s"))
    plain = SlopePrior(kernel=kernel, lengthscale=1.4, curvature=0.3)
    expected = condition(plain, centered(rows, CENTER), N).gradient(x)
    ours = condition(replace(plain, rho=rho), centered(rows, CENTER), N).gradient(x)
    cosine = torch.nn.functional.cosine_similarity(ours, expected)
    assert (cosine > 1 - 1e-5).all()


@pytest.mark.parametrize("rho", [0.0, 3.0])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_basis_of_slopes_gives_a_linear_gradient(kernel: KernelName, rho: float) -> None:
    truth, x = normals(D, key="truth"), normals(D, key="x")
    basis = torch.linalg.qr(normals(D, D, key="basis")).Q
    rows = everybody(x.expand(D, D), basis, basis @ truth)
    prior = SlopePrior(kernel=kernel, lengthscale=0.8, rho=rho)
    [found] = condition(prior, centered(rows, CENTER), N).gradient(x.unsqueeze(0))
    assert (found - truth).norm() < 1e-4 * truth.norm()


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_trend_extrapolates_an_isotropic_quadratic(kernel: KernelName) -> None:
    """F = 3/2 |x - center|^2, asked near the center with a short kernel, met far away."""
    middle = CENTER + normals(6, D, key="m")
    directions = torch.nn.functional.normalize(normals(6, D, key="u"))
    rows = everybody(middle, directions, 3 * ((middle - CENTER) * directions).sum(1))
    prior = SlopePrior(kernel=kernel, lengthscale=0.2, curvature=100.0)
    posterior = condition(prior, centered(rows, CENTER), N)
    a, b = CENTER + 20 + normals(2, 4, D, key="far")
    assert torch.allclose(posterior.gradient(a), 3 * (a - CENTER), rtol=1e-2)
    expected = 1.5 * ((b - CENTER).square().sum(1) - (a - CENTER).square().sum(1))
    assert torch.allclose(posterior.change(a, b), expected, rtol=1e-2)


@every_prior
def test_log_evidence_is_the_density_at_the_best_amplitude(prior: SlopePrior) -> None:
    """Up to -(r / 2) (log 2 pi + 1), which no hyper-parameter changes."""
    rows = table()
    full, _ = naive(prior, rows, CENTER)

    def negative(log_amplitude: float) -> float:
        cov = 2.718281828459045**log_amplitude * full.numpy()
        return -float(multivariate_normal.logpdf(rows.slope.numpy(), cov=cov))

    best = -float(minimize_scalar(negative, bounds=(-12, 12), method="bounded").fun)
    ours = log_evidence(prior, rows, geometry(*2 * [centered(rows, CENTER)]), N)
    assert ours == pytest.approx(best + R / 2 * (1 + 1.8378770664093453), abs=1e-3)


@every_prior
@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_a_fit_never_lowers_the_evidence(prior: SlopePrior, seed: int) -> None:
    rows = table(seed)
    seen = centered(rows, CENTER)
    shape = geometry(seen, seen)
    lengths, others = [0.3, 0.7, 3.0, 9.0], [0.0, 0.01, 1.0]
    grids = [("lengthscale", lengths), ("rho", others), ("noise", others)]
    posterior, best = fit(prior, seen, shape, N, grids), prior
    found = posterior.prior
    assert torch.equal(posterior.weights, condition(found, seen, N, shape=shape).weights)
    assert log_evidence(found, rows, shape, N) >= log_evidence(prior, rows, shape, N)
    for name, grid in grids:
        trials = [best, *(replace(best, **{name: value}) for value in grid)]
        best = max(trials, key=lambda trial: log_evidence(trial, rows, shape, N))
    assert found == best


@every_prior
@pytest.mark.parametrize("most", [3, R, R + 2, 2 * R])
def test_an_extended_posterior_is_that_of_all_rows(prior: SlopePrior, most: int) -> None:
    rows, fresh, x = table(0), table(1).take(slice(4)), normals(4, D, key="x")
    ours = condition(prior, centered(rows, CENTER), N).extended(fresh, most=most)
    whole = centered(join_rows([rows, fresh], most=most), CENTER)
    expected = condition(prior, whole, N)
    assert torch.allclose(ours.covariance, expected.covariance, rtol=1e-10, atol=1e-12)
    assert torch.allclose(ours.gradient(x), expected.gradient(x), rtol=1e-6, atol=1e-8)


@every_prior
@pytest.mark.parametrize(
    "change", [{}, {"lengthscale": 0.7}, {"rho": 0.2}, {"curvature": 2.0}, {"noise": 0.3}]
)
def test_a_covariance_like_another_is_the_one_made_anew(
    prior: SlopePrior, change: dict[str, float]
) -> None:
    seen = centered(table(), CENTER)
    shape, other = geometry(seen, seen), replace(prior, **change)  # type: ignore[arg-type]
    ours = shape.covariance(other, N, like=shape.covariance(prior, N)).matrix()
    assert torch.equal(ours, shape.covariance(other, N).matrix())

"""Seed-ZO, FedZeN and ReLIZO: what shared directions promise."""

import pytest
import torch

from fedzo.errors import ConfigError
from fedzo.objectives.objective import TorchObjective
from scenarios import federate
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import RunResult, simulate
from strategies.shared.fedzen import learn_hessian, newton_step

D, N = 40, 5


def run(strategy: str, heterogeneity: float = 5.0, rounds: int = 10, **more: object) -> RunResult:
    settings = {"scenario.dim": D, "scenario.heterogeneity": heterogeneity, **more}
    return simulate(make_experiment("quadratic", strategy, num_rounds=rounds, settings=settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["seedzo", "fedzen", "relizo"])
def test_heterogeneity_cancels(strategy: str) -> None:
    little, much = (run(strategy, c).x for c in (0.5, 50.0))
    torch.testing.assert_close(little, much, rtol=0, atol=1e-6)


def test_fedzo_does_not_have_that() -> None:
    little, much = (run("fedzo", c).x for c in (0.5, 50.0))
    assert (little - much).abs().max() > 0.01


@pytest.mark.parametrize(
    ("strategy", "asked", "sent"), [("seedzo", 21, 20), ("relizo", 21, 21), ("fedzen", 41, 41)]
)
def test_scalars_go_up_and_x_goes_down(strategy: str, asked: int, sent: int) -> None:
    last = run(strategy, rounds=2).records[-1]
    assert last.queries == 2 * N * asked
    assert last.floats_up == 2 * N * sent
    assert last.floats_down == 2 * N * (D + 1)


@pytest.mark.parametrize("strategy", ["seedzo", "fedzen", "relizo"])
@pytest.mark.parametrize("budget", [5, 104, 105, 110, 333])
def test_a_budget_is_never_exceeded(strategy: str, budget: int) -> None:
    experiment = make_experiment(
        "quadratic", strategy, num_rounds=50, query_budget=budget, settings={"scenario.dim": D}
    )
    result = simulate(experiment)
    assert result.queries <= budget
    assert result.stops == ["budget"]


def test_seedzo_descends_with_central_differences_too() -> None:
    result = run("seedzo", rounds=60, **{"client.estimator": "central"})
    assert result.final_value < 0.1 * result.initial_value  # type: ignore[operator]


@pytest.mark.parametrize("dim", [7, 30])
def test_fedzen_wants_orthonormal_blocks_in_any_dimension(dim: int) -> None:
    """20 directions asked for: all 7 there are, or blocks that never straddle two bases of 30."""
    settings = {"scenario.dim": dim, "client.num_directions": 20}
    result = simulate(make_experiment("quadratic", "fedzen", num_rounds=40, settings=settings))
    assert result.metrics["gap"] < 1e-6


def test_fedzen_ends_an_isotropic_quadratic_after_all_directions() -> None:
    """20 of 40 directions a round, each an exact line minimum: done in two rounds."""
    records = run("fedzen", rounds=3).records
    assert records[1].metrics["gap"] > 0.1
    assert records[3].metrics["gap"] == pytest.approx(0, abs=1e-8)


def test_a_hessian_is_learned_along_what_was_probed() -> None:
    true = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    rotation, _ = torch.linalg.qr(torch.arange(9.0).reshape(3, 3).sin().double())
    true = rotation @ true @ rotation.T
    hessian = torch.empty(0, 0, dtype=torch.float64)
    error = []
    for turn in range(60):
        u, _ = torch.linalg.qr((torch.arange(9.0).reshape(3, 3) * (turn + 1)).cos().double())
        hessian = learn_hessian(hessian, u.T, ((u.T @ true) * u.T).sum(1))
        error.append(float((hessian - true).norm()))
    assert error[-1] < 1e-3 * error[0]


def test_a_newton_step_is_a_solve_and_goes_downhill_on_a_saddle() -> None:
    gradient = torch.tensor([1.0, 2.0], dtype=torch.float64)
    hessian = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        newton_step(hessian, gradient), torch.linalg.solve(hessian, gradient)
    )
    saddle = torch.diag(torch.tensor([1.0, -2.0], dtype=torch.float64))
    assert newton_step(saddle, gradient) @ gradient > 0
    assert torch.equal(newton_step(torch.zeros(2, 2).double(), gradient), gradient)


def test_relizo_is_the_least_norm_gradient() -> None:
    """After one round: x - Adam(D^+ s), and Adam's first step is lr times the sign."""
    result = run("relizo", rounds=1, **{"scenario.heterogeneity": 0.0})
    start = simulate(
        make_experiment("quadratic", "relizo", num_rounds=0, settings={"scenario.dim": D})
    ).x
    moved = result.x - start
    inside = (result.x > 0) & (result.x < 1)
    torch.testing.assert_close(
        moved[inside].abs(), torch.full_like(moved, 0.03)[inside], rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("strategy", ["seedzo", "fedzo", "fedzo_adam", "scaffold2"])
def test_on_images_smooth_directions_need_fewer_queries(strategy: str) -> None:
    side = 12
    place = torch.arange(side).double() / 3
    weights = (place.sin().unsqueeze(1) * place.cos()).flatten()

    def reached(lengthscale: float) -> float:
        result = federate(
            lambda _: TorchObjective(
                function=lambda x: x @ weights, dim=side**2, lower=-1, upper=1
            ),
            num_clients=2,
            strategy=strategy,
            num_rounds=4,
            settings={"client.num_directions": 4, "client.lengthscale": lengthscale},
        )
        return float(result.final_value or 0.0)

    assert reached(2.0) < 1.5 * reached(0.0) < 0


@pytest.mark.parametrize("strategy", ["fedzen", "relizo"])
def test_smooth_directions_are_refused_where_they_would_mislead(strategy: str) -> None:
    with pytest.raises(ConfigError, match=r"client\.lengthscale is refused: the"):
        make_experiment("quadratic", strategy, settings={"client.lengthscale": 1.0})


def test_smooth_directions_want_a_square_image() -> None:
    with pytest.raises(ConfigError, match=r"lengthscale=1\.0 must be 0"):
        run("seedzo", **{"client.lengthscale": 1.0})
    with pytest.raises(ConfigError, match=r"lengthscale=1\.0 must be 0 along the axes"):
        run("fedzo", **{"client.lengthscale": 1.0, "client.estimator": "coordinate"})


def test_fedzen_refuses_a_hessian_that_no_memory_holds() -> None:
    experiment = make_experiment("quadratic", "fedzen", settings={"scenario.dim": 60_000})
    with pytest.raises(ConfigError, match=r"60000 .*at most 10,000 .*27 GiB.*seedzo"):
        simulate(experiment)

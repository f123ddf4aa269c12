"""FZooS, improved and on_client: what the documentation promises."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients import make_rules
from fedzo.errors import ConfigError
from fedzo.objectives.objective import CallableObjective, TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import RunResult, federate, simulate
from strategies.core.driver import RunSettings, run_rounds
from strategies.surrogate.fzoos import FZooS
from strategies.surrogate.fzoos_config import FZooSConfig

N = 5


def run(
    *, dim: int = 60, budget: int | None = None, rounds: int = 8, seed: int = 0, **settings: object
) -> RunResult:
    given = {"scenario.dim": dim, **{k.replace("__", "."): v for k, v in settings.items()}}
    experiment = make_experiment(
        "quadratic",
        "fzoos",
        num_rounds=rounds,
        query_budget=budget,
        seed=seed,
        settings=given,  # type: ignore[arg-type]
    )
    return simulate(experiment)


@pytest.mark.parametrize(
    "heterogeneity", [5.0, *(pytest.param(c, marks=pytest.mark.slow) for c in (0.5, 50.0))]
)
def test_it_reaches_the_optimum_of_the_paper_within_5000_queries(heterogeneity: float) -> None:
    result = run(dim=300, rounds=1000, budget=5000, scenario__heterogeneity=heterogeneity)
    assert result.queries <= 5000
    assert result.final_value <= -0.0240  # type: ignore[operator]


def test_shared_directions_cancel_heterogeneity() -> None:
    little, much = (
        run(scenario__heterogeneity=c, strategy__design="shared").x for c in (0.5, 50.0)
    )
    torch.testing.assert_close(little, much, rtol=0, atol=1e-4)


def test_the_design_follows_the_heterogeneity() -> None:
    """Alike clients explore their own directions: more basis rows are used up than shared ones."""
    alike, unlike = (run(scenario__heterogeneity=c, rounds=6).records[-1] for c in (0.1, 50.0))
    assert alike.queries == unlike.queries
    assert alike.value < 0.1 * unlike.value or alike.value < 0  # type: ignore[operator]


def test_queries_and_floats_are_as_documented() -> None:
    first, second = run(rounds=2, strategy__num_directions=7).records[1:]
    assert first.queries == N * (1 + 7 + 4)
    assert second.queries - first.queries == N * (7 + 4)
    assert second.floats_up == second.queries
    assert second.floats_down == 2 * N * (60 + 1 + 4 * 60)


def test_directions_are_never_more_than_dimensions() -> None:
    assert run(dim=3, rounds=1).queries == N * (1 + 3 + 4)


@pytest.mark.parametrize("budget", [5, 200, 276, 300, 777])
def test_a_budget_is_never_exceeded(budget: int) -> None:
    result = run(dim=300, rounds=50, budget=budget)
    assert result.queries <= budget
    assert result.stops == ["budget"]


def test_same_seed_same_bits_other_seed_others() -> None:
    one, same, other = (run(rounds=4, seed=seed).x for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_run_that_a_callback_ended_is_over(tmp_path: Path) -> None:
    """That every variant goes on from its checkpoints is a law of all strategies."""
    settings = {"scenario.dim": 20, "strategy.participation": 0.6}
    experiment = make_experiment("quadratic", "fzoos", num_rounds=5, settings=settings)  # type: ignore[arg-type]
    simulate(experiment, out=tmp_path, callbacks=[lambda s: s.record.round_index == 2])
    kept = simulate(experiment, out=tmp_path, resume=True)
    assert kept.records[-1].round_index == 2


def test_noise_does_not_stop_the_line_search() -> None:
    result = run(dim=100, rounds=25, scenario__noise_std=1e-3, seed=1)
    assert result.final_value < -0.015  # type: ignore[operator]


def test_a_steep_coordinate_on_a_bound_does_not_stop_the_others() -> None:
    def bowl(client: int) -> CallableObjective:
        def value(x: NDArray[np.float64]) -> float:
            return float(1e3 * x[0] + ((x[1:] - 0.5 - 0.01 * (client - 1)) ** 2).sum())

        return CallableObjective(function=value, dim=6, lower=-1, upper=3)

    start = np.ones(6)
    found = federate(bowl, num_clients=3, strategy="fzoos", num_rounds=15, initial_x=start)
    assert found.final_value < -999.999  # type: ignore[operator]


def test_a_sample_of_the_clients_is_enough() -> None:
    settings = {
        "scenario.dim": 60,
        "scenario.heterogeneity": 5.0,
        "strategy.participation": 0.3,
    }
    experiment = make_experiment(
        "quadratic", "fzoos", num_rounds=25, num_clients=20, settings=settings
    )
    result = simulate(experiment)
    assert result.final_value < 0.02 * result.initial_value  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clients", "settings"),
    [
        (20, {"scenario.dim": 5, "strategy.participation": 0.3}),
        (5, {"scenario.dim": 20, "strategy.design": "private"}),
        (10, {"scenario.dim": 20, "strategy.participation": 0.1, "scenario.heterogeneity": 5.0}),
    ],
)
def test_heterogeneity_is_fitted_where_it_cannot_be_measured(
    clients: int, settings: dict[str, object]
) -> None:
    """Few dimensions, private directions only, or one client a round: rows of different owners."""
    given = {"scenario.heterogeneity": 50.0, **settings}
    experiment = make_experiment(
        "quadratic",
        "fzoos",
        num_rounds=60,
        num_clients=clients,
        settings=given,  # type: ignore[arg-type]
    )
    result = simulate(experiment)
    assert result.best_value < 0.05 * result.initial_value  # type: ignore[operator]


def test_clients_that_fail_are_done_without() -> None:
    def make(client: int) -> CallableObjective:
        calls = {"n": 0}

        def value(x) -> float:  # type: ignore[no-untyped-def]
            calls["n"] += 1
            if client == 2 and calls["n"] > 12:
                raise OSError("offline")
            return float(((x - 0.2 * client) ** 2).sum())

        return CallableObjective(function=value, dim=6)

    objectives = {client: make(client) for client in range(4)}
    engine = InProcessEngine(FunctionEnvironment(objectives.__getitem__), make_rules())
    problem = OpenProblem(initial_x=torch.ones(6, dtype=torch.float64) * 3)
    outcome = run_rounds(
        FZooS(FZooSConfig()), engine, problem, RunSettings(num_clients=4, num_rounds=12)
    )
    assert outcome.records[-1].failures.keys() == {2}
    best = torch.full((6,), (0 + 0.2 + 0.6) / 3, dtype=torch.float64)
    assert (outcome.state.x - best).abs().max() < 0.2


def test_one_client_without_a_box() -> None:
    objective = TorchObjective(function=lambda x: (x - 0.7).square().sum(-1), dim=9)
    engine = InProcessEngine(FunctionEnvironment(lambda _: objective), make_rules())
    problem = OpenProblem(initial_x=torch.zeros(9, dtype=torch.float64))
    outcome = run_rounds(
        FZooS(FZooSConfig()), engine, problem, RunSettings(num_clients=1, num_rounds=30)
    )
    assert outcome.records[-1].value < 1e-4  # type: ignore[operator]


def test_judging_asks_nobody_again() -> None:
    """In an open problem F is the mean of the clients' answers, which the line search has."""
    objective = TorchObjective(function=lambda x: x.square().sum(-1), dim=4)
    engine = InProcessEngine(FunctionEnvironment(lambda _: objective), make_rules())
    problem = OpenProblem(initial_x=torch.ones(4, dtype=torch.float64))
    outcome = run_rounds(
        FZooS(FZooSConfig()), engine, problem, RunSettings(num_clients=3, num_rounds=2)
    )
    assert [r.queries for r in outcome.records] == [3, 3 * (1 + 1 + 4 + 4), 3 * (2 + 2 * 8)]
    x = outcome.state.x
    assert outcome.records[-1].value == pytest.approx(float(x.square().sum()))


def test_identical_clients_have_nothing_to_correct() -> None:
    """Five copies of one client walk as that client alone."""
    same = {"strategy.variant": "on_client", "scenario.dim": 20, "scenario.heterogeneity": 0.0}
    alone, five = (
        simulate(make_experiment("quadratic", "fzoos", num_rounds=6, num_clients=n, settings=same))
        for n in (1, 5)
    )
    torch.testing.assert_close(alone.x, five.x, rtol=0, atol=1e-9)


def test_on_client_sends_gradients_not_values() -> None:
    records = run(rounds=2, strategy__variant="on_client", strategy__num_directions=7).records
    assert records[2].queries == 2 * N * 8
    assert records[2].floats_up == 2 * N * (2 * 60 + 3)
    assert records[2].floats_down == 2 * N * (2 * 60 + 1)


def test_on_client_beats_fedzo_on_equal_queries() -> None:
    ours = run(rounds=1000, budget=1500, strategy__variant="on_client", dim=50)
    settings = {"scenario.dim": 50}
    fedzo = make_experiment(
        "quadratic", "fedzo", num_rounds=1000, query_budget=1500, settings=settings
    )
    assert ours.final_value < 0.1 * simulate(fedzo).final_value  # type: ignore[operator]


def test_settings_of_other_variants_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"client\.gamma=constant has no effect with strategy\.variant="
    ):
        make_experiment("quadratic", "fzoos", settings={"client.gamma": "constant"})
    with pytest.raises(ConfigError, match=r"local_lr=0\.1 has no effect with strategy\.variant="):
        make_experiment("quadratic", "fzoos", settings={"strategy.local_lr": 0.1})
    with pytest.raises(ConfigError, match=r"line_search=3,1 must be ascending"):
        make_experiment("quadratic", "fzoos", settings={"strategy.line_search": "3,1"})


SIDE = 12


def smooth_slope(client: int) -> torch.Tensor:
    """Blobs that clients share, and noise of their own that cancels."""
    place = torch.arange(SIDE).double() / 3
    blobs = (place.sin().unsqueeze(1) * place.cos()).flatten()
    own = torch.linspace(-1, 1, SIDE * SIDE, dtype=torch.float64).roll(7 * client)
    return blobs + 0.2 * (own - sum(own.roll(7 * k) for k in range(N)) / N)


def on_an_image(rounds: int = 4, image: bool | None = None, **config: object) -> float:
    """Return F after some rounds on a bent function of an image, from 0; its least is below -40."""

    def make(client: int) -> TorchObjective:
        weights = smooth_slope(client)
        return TorchObjective(
            function=lambda x: x @ weights + x.square().sum(-1) / 2, dim=SIDE * SIDE
        )

    @dataclass(frozen=True)
    class Told(OpenProblem):
        image: bool | None = None

    problem = Told(initial_x=torch.zeros(SIDE * SIDE).double(), image=image)
    engine = InProcessEngine(FunctionEnvironment(make), make_rules())
    outcome = run_rounds(
        FZooS(FZooSConfig(num_directions=4, **config)),  # type: ignore[arg-type]
        engine,
        problem,
        RunSettings(num_clients=N, num_rounds=rounds),
    )
    assert outcome.records[-1].value is not None
    return outcome.records[-1].value


@pytest.mark.slow
@pytest.mark.parametrize(
    "design",
    ["auto", *(pytest.param(d, marks=pytest.mark.slow) for d in ("shared", "private"))],
)
def test_on_images_a_spatial_prior_needs_fewer_queries(design: str) -> None:
    """Rows are kept in white coordinates, where the same surrogate is exact as well."""
    assert on_an_image(design=design, lengthscale=2.0) < 1.3 * on_an_image(design=design) < 0
    found = on_an_image(rounds=90, design=design, lengthscale=1.5, initial_step=0.3, max_step=1.0)
    least = -float(sum(smooth_slope(k) for k in range(N)).div(N).square().sum()) / 2  # type: ignore[union-attr]
    assert found < 0.98 * least


def test_what_is_no_image_has_no_spatial_prior() -> None:
    assert on_an_image(image=False, lengthscale=2.0) == on_an_image()
    assert on_an_image(image=True, lengthscale=2.0) == on_an_image(lengthscale=2.0)
    with pytest.raises(ConfigError, match=r"lengthscale=2\.0 must be 0, for x has 60 coordinates"):
        run(strategy__lengthscale=2.0)
    with pytest.raises(ConfigError, match=r"lengthscale=-1\.0"):
        FZooSConfig(lengthscale=-1.0)

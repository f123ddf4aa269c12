"""What a private run's claim rests on: all of its releases, noise nobody knows, nothing beside."""

import math
import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import dp_accounting as dp
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from flwr.app import Array, ArrayRecord
from matplotlib.figure import Figure
from torch import nn

from clients.app import build_client_app
from clients.rules import make_rules
from fedzo.errors import ConfigError, FedzoWarning
from fedzo.objectives.objective import CallableObjective, ModuleObjective
from fedzo.objectives.problem import OpenProblem, Problem
from fedzo.privacy.accountant import Ledger, Sampling
from fedzo.protocol.questions.training_config import ZerothOrderConfig
from fedzo.randomness import stream
from fedzo.records.history import RoundRecord, read_history
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.inprocess import InProcessEngine
from scenarios.problems.attack import AttackScenario
from scenarios.problems.attack_figure import _draw_margins
from scenarios.problems.regression import RegressionConfig, RegressionScenario
from scenarios.runs.compare import compare
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.ownership import is_own
from scenarios.runs.simulate import RunResult, federate, simulate
from strategies.core.cohorts import sample_cohort
from strategies.core.driver import RunSettings, run_rounds
from strategies.core.outcome import Outcome
from strategies.private.diff2 import DIFF2
from strategies.private.diff2_config import DIFF2Config
from strategies.private.private_fedavg import PrivateFedAvg, PrivateFedAvgConfig

DP = ["dp_gd", "diff2", "dp_zo", "dp_fedavg"]


class Posed(RegressionScenario):
    """Three problems, put to the same clients."""

    num_problems = 3  # type: ignore[misc]

    def problem(self, index: int) -> Problem:
        return replace(super().problem(index), index=index)  # type: ignore[type-var]


def posed(strategy: str, rounds: int = 4, **settings: Any) -> tuple[Experiment, Posed]:
    own = {"client.num_directions": 3} if strategy == "dp_zo" else {}
    small = {"scenario.max_records": 100, **own, **settings}
    made = make_experiment("regression", strategy, num_rounds=rounds, num_clients=3, settings=small)
    return made, Posed(made.config("scenario"), num_clients=3, seed=0)


def quiet(made: Experiment, **more: Any) -> RunResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FedzoWarning)
        return simulate(made, **more)


@pytest.mark.more
@pytest.mark.parametrize("strategy", DP)
def test_epsilon_over_three_problems_is_that_of_all_releases(strategy: str) -> None:
    """Every release by hand into dp-accounting: z = std / sensitivity, whatever the problem."""
    made, scenario = posed(strategy, **{"strategy.epsilon": 3.0})
    released: list[list[float]] = []

    def keep(snapshot: Any) -> None:
        rows = snapshot.state.privacy.ledger.rows.tolist()
        if snapshot.record.round_index == 4:
            released.extend(rows)

    result = quiet(made, scenario=scenario, callbacks=[keep])
    assert sum(row[1] for row in released) == 12
    accountant = PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
    inverse = sum(count / z**2 for z, count, _, _ in released) ** -0.5
    accountant.compose(dp.GaussianDpEvent(inverse))
    exact = dp.get_epsilon_gaussian(inverse, 1e-5)
    assert result.epsilon == pytest.approx(exact, abs=1e-6)
    assert result.epsilon == pytest.approx(accountant.get_epsilon(1e-5), abs=2e-3)
    assert result.epsilon == pytest.approx(3.0, rel=1e-6)
    assert result.stops == ["rounds"] * 3
    told = [record.epsilon_run for record in result.records]
    assert told == sorted(told)  # type: ignore[type-var]
    assert told[-1] == result.epsilon == result.summary()["privacy"]["epsilon"]
    own = [record.epsilon for record in result.last_records]
    assert max(own) < 2  # type: ignore[type-var]


def test_the_budget_is_that_of_all_problems() -> None:
    """Noise by hand for four releases: a fourth problem's worth is not asked for."""
    z = 2 / 0.5
    made, scenario = posed("dp_gd", **{"strategy.noise_multiplier": z, "strategy.epsilon": 3.0})
    result = quiet(made, scenario=scenario)
    most = max(n for n in range(1, 20) if Ledger.empty().after(z, n).epsilon(1e-5) <= 3.0)
    assert 4 < most < 12
    assert result.stops[-1] == "privacy"
    assert sum(record.round_index for record in result.last_records) == most
    assert result.epsilon == Ledger.empty().after(z, most).epsilon(1e-5)
    assert result.spent
    assert result.spent.whole.rows[:, 1].tolist() == [most]


@pytest.mark.parametrize("at", [(1, 0), (2, 4)])
def test_a_run_of_several_problems_that_is_resumed_has_spent_the_same(
    at: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scenarios.runs.rundir.CHECKPOINT_EVERY_S", 0.0)
    made, scenario = posed("diff2")
    whole = quiet(made, scenario=scenario)

    def die(snapshot: Any) -> None:
        if (snapshot.record.problem, snapshot.record.round_index) == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quiet(made, scenario=scenario, out=tmp_path, callbacks=[die])
    resumed = quiet(*posed("diff2")[:1], scenario=posed("diff2")[1], out=tmp_path, resume=True)
    assert torch.equal(resumed.solutions[2], whole.solutions[2])
    assert [r.epsilon_run for r in resumed.records] == [r.epsilon_run for r in whole.records]
    assert resumed.epsilon == whole.epsilon
    assert read_history(tmp_path / "history.jsonl")[-1].epsilon_run == whole.epsilon
    again = quiet(made, scenario=scenario, out=tmp_path, resume=True)
    assert again.epsilon == whole.epsilon
    assert again.spent
    assert torch.equal(again.spent.whole.rows, whole.spent.whole.rows)  # type: ignore[union-attr]


def test_ledgers_join_with_their_samples() -> None:
    fixed = Sampling(drawn=2, population=10)
    poisson = Sampling(drawn=2, population=10, fixed_size=False)
    one = Ledger.empty().after(3.0, 2).after(2.0, 1, fixed)
    other = Ledger.empty().after(2.0, 3, fixed).after(3.0, 1).after(2.0, 1, poisson)
    joined = one.joined(other).rows.tolist()
    assert joined == [[3, 3, 0, 0], [2, 4, 2, 10], [2, 1, 2, -10]]


def own_objective(client: int) -> ModuleObjective:
    random = stream(1, "own", client)
    inputs = torch.from_numpy(random.standard_normal((20, 3))).float()
    return ModuleObjective(nn.Linear(3, 1), nn.functional.mse_loss, inputs, inputs[:, :1])


def told_by(work: Any) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    return result, [str(w.message) for w in caught if w.category is FedzoWarning]


def own_run(**settings: Any) -> tuple[RunResult, list[str]]:
    dotted = {f"strategy.{name}": value for name, value in settings.items()}
    start = torch.zeros(4)
    return told_by(
        lambda: federate(
            own_objective, num_clients=2, strategy="dp_gd", num_rounds=2, initial_x=start,
            settings=dotted,
        )
    )  # fmt: skip


def test_own_data_get_noise_that_no_seed_repeats() -> None:
    (one, _), (other, _) = own_run(), own_run()
    assert not torch.equal(one.x, other.x)
    assert one.summary()["privacy"]["noise"] == "os"
    assert one.records[-1].shortened is None
    (one, said), (other, _) = own_run(noise_source="stream"), own_run(noise_source="stream")
    assert torch.equal(one.x, other.x)
    assert sum("noise_source=stream makes the noise from the public seed=0" in s for s in said) == 1
    _, said = own_run(report_shortened=True)
    assert any("share of clipped vectors" in s for s in said)
    assert own_run(epsilon=math.inf)[1] == [], "nothing is claimed, so nothing is undone"


def test_judging_private_data_is_said_and_zero_asks_nobody() -> None:
    result, said = own_run()
    assert result.final_value is not None
    assert sum("F and metrics are computed on private data" in s for s in said) == 1
    assert result.summary()["privacy"]["judged"] == "not covered by epsilon"
    result, said = own_run(evaluate_every=0)
    assert said == []
    assert all(record.value is None and not record.metrics for record in result.records)
    # Two clients are asked four times whether the losses of their records average to F.
    assert [record.queries for record in result.records] == [0, 8, 8]
    assert [record.gradients for record in result.records] == [0, 2, 4]
    assert result.summary()["privacy"]["judged"] == "nothing"


@dataclass
class Listening(InProcessEngine):
    """An engine that keeps what was asked."""

    kinds: list[str] = field(default_factory=list)

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kinds = []

    def perform(self, exchanges: Any, *, timeout_s: float) -> Any:
        self.kinds += [exchange.kind for exchange in exchanges]
        return super().perform(exchanges, timeout_s=timeout_s)


@pytest.mark.parametrize("budget", [None, 90])
def test_nothing_but_the_mechanism_is_asked(budget: int | None) -> None:
    class World:
        noise_std = 0.0

        def cohort(self, client_ids: Any, problem: int) -> Any:
            from fedzo.objectives.cohort import cohort_of

            def value(x: Any) -> float:
                return float((x**2).sum())

            return cohort_of([CallableObjective(function=value, dim=2) for _ in client_ids])

    def kinds(config: PrivateFedAvgConfig) -> tuple[list[str], Outcome]:
        engine = Listening(World(), make_rules())
        outcome = run_rounds(
            PrivateFedAvg(config, client=ZerothOrderConfig(num_directions=3)),
            engine,
            OpenProblem(initial_x=torch.ones(2, dtype=torch.float64)),
            RunSettings(num_clients=3, num_rounds=3, query_budget=budget),
        )
        return engine.kinds, outcome

    asked, outcome = kinds(PrivateFedAvgConfig(evaluate_every=0, local_steps=2))
    assert set(asked) == {"train.zeroth_order"}
    assert all(record.value is None for record in outcome.records)
    asked, _ = kinds(PrivateFedAvgConfig(evaluate_every=0, local_steps=2, epsilon=math.inf))
    assert asked[0] == "evaluate", "a run that claims nothing is judged at its start as any other"


def test_simulations_on_public_data_are_judged_and_repeat_as_ever() -> None:
    made = make_experiment(
        "regression", "dp_gd", num_rounds=2, num_clients=2,
        settings={"strategy.evaluate_every": 0, "scenario.max_records": 60},
    )  # fmt: skip
    (one, said), (other, _) = told_by(lambda: simulate(made)), told_by(lambda: simulate(made))
    assert said == []
    assert torch.equal(one.x, other.x)
    assert [record.value is None for record in one.records] == [False, True, False]
    assert one.summary()["privacy"]["noise"] == "simulated"


def test_own_data_are_those_that_fedzo_neither_makes_nor_ships(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    rows = stream(0, "table").standard_normal((40, 2)).tolist()
    table.write_text("a,b\n" + "\n".join(f"{a},{b}" for a, b in rows) + "\n")
    own: list[tuple[str, dict[str, Any]]] = [
        ("regression", {"scenario.data": "csv", "scenario.path": str(table)}),
        ("metric", {"scenario.data": "csv", "scenario.path": str(table)}),
        ("classification", {"scenario.dataset": "idx", "scenario.data_dir": str(tmp_path)}),
        ("attack", {"scenario.dataset": "idx", "scenario.data_dir": str(tmp_path)}),
        ("attack", {"scenario.endpoints": "http://127.0.0.1:1"}),
        ("custom", {"scenario.objective": "x.py:make"}),
        ("remote", {}),
    ]
    public: list[tuple[str, dict[str, Any]]] = [
        ("quadratic", {}), ("multimodal", {}), ("attack", {}), ("metric", {}),
        ("classification", {}), ("classification", {"scenario.dataset": "idx"}), ("regression", {}),
        ("regression", {"scenario.data": "california"}),
    ]  # fmt: skip
    for cases, source in ((own, "os"), (public, "stream")):
        for scenario, settings in cases:
            made = make_experiment(scenario, "dp_fedzo", settings=settings)
            assert made.settings["strategy.noise_source"] == source, (scenario, settings)
            assert made.own_data is (source == "os")
            assert made.settings["strategy.report_shortened"] is (source == "stream")
    assert not is_own(RegressionConfig())
    scaled = {"scenario.scaling": "data", "scenario.data": "csv", "scenario.path": str(table)}
    made = make_experiment("regression", "dp_gd", num_rounds=1, num_clients=2, settings=scaled)
    one, said = told_by(lambda: simulate(made))
    assert not torch.equal(one.x, told_by(lambda: simulate(made))[0].x)
    assert any("computed on private data" in s for s in said)
    silent = make_experiment(
        "regression", "dp_gd", num_rounds=1, num_clients=2,
        settings={**scaled, "strategy.evaluate_every": 0},
    )  # fmt: skip
    assert told_by(lambda: simulate(silent))[0].final_value is None


def test_a_scenario_of_the_callers_own_is_never_public() -> None:
    made, scenario = posed("dp_gd", rounds=1)
    assert any(
        "noise_source=stream" in s for s in told_by(lambda: simulate(made, scenario=scenario))[1]
    )


def test_seeds_on_own_data_add_up_and_it_is_said(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("a,b\n" + "\n".join(f"{i},{i % 7}" for i in range(40)) + "\n")
    own = {"scenario.data": "csv", "scenario.path": str(table), "scenario.scaling": "data"}
    for settings, expected in ((own, 1), ({"scenario.max_records": 60}, 0)):
        base = {
            "scenario": "regression", "num_rounds": 1, "num_clients": 2,
            "settings": {**settings, "scenario.hidden": 2},
        }  # fmt: skip
        said = told_by(partial(compare, base, ["dp_gd", "fedavg"], [0, 1]))[1]
        assert sum("2 private runs have released" in s for s in said) == expected


def test_a_strategy_started_on_a_grid_says_what_epsilon_does_not_cover() -> None:
    app = build_client_app(own_objective)
    arrays = ArrayRecord({"x": Array(torch.zeros(4).numpy())})
    for every, expected in ((1, 1), (0, 0)):
        strategy = DIFF2(DIFF2Config(evaluate_every=every, restart_period=1))
        grid = InProcessGrid(app, num_clients=2)
        result, said = told_by(partial(strategy.start, grid, arrays, num_rounds=2))
        assert sum("F and metrics are computed on private data" in s for s in said) == expected
        assert len(result.evaluate_metrics_clientapp) == 3 * expected


def test_a_secret_sample_is_as_secret_as_the_noise() -> None:
    def drawn(**settings: Any) -> Any:
        method = PrivateFedAvg(PrivateFedAvgConfig(participation=0.1, **settings))
        return sample_cohort(method, None, 100, seed=0, problem=0, round_index=1)

    assert drawn() == drawn(), "nobody claims that this sample is secret"
    public = drawn(noise_source="stream", secret_sample=True)
    assert public == drawn(), "a simulation's, which repeats"
    secret = [drawn(secret_sample=True) for _ in range(5)]
    assert len({tuple(cohort) for cohort in [public, *secret]}) == 6
    assert all(len(set(cohort)) == 10 for cohort in secret)


def test_an_attack_that_nobody_judged_has_a_figure_and_a_summary() -> None:
    records = [RoundRecord(problem=i, round_index=2, queries=7, epsilon=1.0) for i in range(2)]
    axes = Figure().add_subplot()
    _draw_margins(axes, records)
    assert len(axes.lines) == 1, "the line at 0"
    told = AttackScenario.summarize(object.__new__(AttackScenario), records)
    assert told == {"mean_queries": 7.0, "mean_rounds": 2.0}


def test_a_wrong_scenario_setting_is_still_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting scenario\.hiden; did you mean"):
        make_experiment("regression", "dp_gd", settings={"scenario.hiden": 3})
    with pytest.raises(ConfigError, match=r"scenario\.hidden=0 must be at least 1"):
        make_experiment("regression", "dp_gd", settings={"scenario.hidden": 0})


def test_a_private_run_whose_first_round_costs_too_much_is_refused() -> None:
    settings = {"strategy.noise_multiplier": 0.5, "strategy.epsilon": 0.1}
    made = make_experiment(
        "quadratic", "dp_fedzo", num_rounds=3, num_clients=4,
        settings={"scenario.dim": 4, **settings},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"the first round would spend epsilon .* is 0\.1; raise"):
        simulate(made)

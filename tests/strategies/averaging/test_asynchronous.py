"""Strategies that do not wait: the same bits however computed, synchronous if they wait for all."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fedzo.errors import ConfigError, RunError
from scenarios.cli.app import app
from scenarios.runs.experiment import make_experiment
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate
from strategies.averaging.staleness import StalenessConfig

SMALL = {"scenario.dim": 8, "strategy.participation": 0.25, "strategy.local_steps": 2}
EACH = ["fedbuff", "fedbuff_zo", "fedasync", "fedasync_zo", "fzoos_async"]


def run(strategy: str, *, rounds: int = 12, clients: int = 40, **more: Any) -> RunResult:
    settings = {**SMALL, **more.pop("settings", {})}
    if strategy == "fzoos_async":
        settings.pop("strategy.local_steps")
    places = {name: more.pop(name) for name in ("engine", "query_budget", "seed") if name in more}
    made = make_experiment(
        "quadratic", strategy, num_rounds=rounds, num_clients=clients, settings=settings, **places
    )
    return simulate(made, **more)


def same(one: RunResult, other: RunResult) -> None:
    assert torch.equal(one.x, other.x)
    assert [r.virtual for r in one.records] == [r.virtual for r in other.records]
    assert [r.queries for r in one.records] == [r.queries for r in other.records]


@pytest.mark.parametrize(("buffered", "plain"), [("fedbuff", "fedavg"), ("fedbuff_zo", "fedzo")])
def test_a_buffer_for_all_is_federated_averaging(buffered: str, plain: str) -> None:
    clock = {"fleet.preset": "fedscale", "fleet.query_s": 0.05, "fleet.jitter": 0.8}
    waiting = {"strategy.buffer": 0, "strategy.refill": "step", **clock}
    one, other = run(buffered, settings=waiting), run(plain, settings=clock)
    assert torch.equal(one.x, other.x)
    assert [r.value for r in one.records] == [r.value for r in other.records]
    assert one.virtual is not None
    assert other.virtual is not None
    assert one.virtual.seconds == pytest.approx(other.virtual.seconds, rel=1e-12)
    assert one.records[-1].bytes_up == other.records[-1].bytes_up


ON_A_CLOCK = {"fleet.preset": "mobile", "fleet.query_s": 0.05, "strategy.participation": 0.5}


def test_a_buffer_for_all_remembers_the_last_aggregate_as_averaging_does() -> None:
    rule = {"strategy.aggregator": "centered_clipping(radius=0.3)", "strategy.num_byzantine": 1}
    plain = run("fedzo", clients=10, settings={**ON_A_CLOCK, **rule})
    waiting = {**ON_A_CLOCK, **rule, "strategy.refill": "step"}
    assert torch.equal(run("fedbuff_zo", clients=10, settings=waiting).x, plain.x)


@pytest.mark.parametrize(
    ("strategy", "more"),
    [("fedbuff_zo", {"strategy.buffer": 2}), ("fedasync_zo", {}), ("fzoos_async", {})],
)
def test_liars_lie_where_answers_come_one_by_one(
    strategy: str, more: dict[str, Any], tmp_path: Path
) -> None:
    lies = {"byzantine.num_clients": 8, "byzantine.attack": "gaussian", "byzantine.scale": 1000.0}
    settings = {**ON_A_CLOCK, **more}
    honest = run(strategy, clients=20, rounds=30, settings=settings)
    lied_to = run(strategy, clients=20, rounds=30, settings={**settings, **lies})
    assert honest.final_value is not None
    assert honest.initial_value is not None
    assert honest.final_value < honest.initial_value < 2 * lied_to.final_value  # type: ignore[operator]
    assert lied_to.final_value > 4 * honest.final_value  # type: ignore[operator]
    kept = {"settings": {**settings, **lies}, "clients": 20, "out": tmp_path / "run"}
    run(strategy, rounds=11, **kept)
    same(lied_to, run(strategy, rounds=30, resume=True, **kept))


@pytest.mark.more
@pytest.mark.parametrize("strategy", ["fedbuff_zo", "fedasync_zo", "fzoos_async"])
def test_liars_among_clients_that_fail_end_no_run(strategy: str) -> None:
    lies = {"byzantine.num_clients": 3, "byzantine.attack": "gaussian"}
    crashing = {**ON_A_CLOCK, **lies, "faults.crash": 0.3}
    assert len(run(strategy, clients=10, settings=crashing).records) == 13


def test_a_lost_answer_costs_the_deadline_whatever_lost_it() -> None:
    equal = {"fleet.jitter": 0.0, "fleet.speed_spread": 0.0, "fleet.link_spread": 0.0}
    waits = {**ON_A_CLOCK, **equal, "strategy.buffer": 3, "strategy.timeout_s": 1e4}
    lost = run("fedbuff_zo", clients=20, rounds=20, settings={**waits, "faults.drop": 0.3})
    assert lost.virtual is not None
    assert lost.virtual.wasted > 5
    assert lost.virtual.wasted == sum(len(record.failures) for record in lost.records)
    assert lost.virtual.seconds > 1e4


@pytest.mark.more
@pytest.mark.parametrize("strategy", EACH)
def test_nothing_depends_on_what_is_computed_together(strategy: str) -> None:
    settings = {"strategy.buffer": 4} if "buff" in strategy else {}
    usual = run(strategy, settings=settings)
    assert usual.final_value is not None
    assert usual.initial_value is not None
    assert usual.final_value < usual.initial_value
    same(usual, run(strategy, settings={**settings, "engine.chunk_size": 1}))
    same(usual, run(strategy, settings={**settings, "engine.strict": True}))


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("strategy", ["fedbuff_zo", "fedasync", "fzoos_async"])
def test_on_ray_too(strategy: str) -> None:
    ray = {"engine.num_actors": 2, "engine.cluster_cpus": 2}
    same(run(strategy), run(strategy, engine="ray", settings=ray))


@pytest.mark.more
@pytest.mark.parametrize("strategy", EACH)
def test_a_run_stopped_between_steps_goes_on_at_the_same_bits(
    strategy: str, tmp_path: Path
) -> None:
    fleet = {"fleet.jitter": 0.5, "fleet.drop_out": 0.1, "strategy.timeout_s": 60.0}
    whole = run(strategy, settings=fleet)
    run(strategy, rounds=5, settings=fleet, out=tmp_path / "run")
    longer = run(strategy, settings=fleet, out=tmp_path / "run", resume=True)
    same(whole, longer)


@pytest.mark.parametrize("strategy", ["fedbuff_zo", "fedasync_zo", "fzoos_async"])
def test_the_query_budget_is_never_exceeded(strategy: str) -> None:
    found = run(strategy, rounds=500, query_budget=1200)
    assert found.queries <= 1200
    assert found.queries > 1000
    assert list(found.stops) == ["budget"]


def test_answers_that_were_paid_for_are_used_when_nothing_is_left() -> None:
    exactly, more = (run("fedbuff_zo", rounds=99, query_budget=b) for b in (2100, 2101))
    assert exactly.queries == more.queries == 2100
    assert torch.equal(exactly.x, more.x)
    assert len(exactly.records) == len(more.records)


@pytest.mark.more
@pytest.mark.parametrize("strategy", ["fedbuff_zo", "fzoos_async"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2, 3))])
def test_jobs_that_failed_are_kept_too(strategy: str, seed: int, tmp_path: Path) -> None:
    faults = {"faults.crash": 0.3, "strategy.max_failed_rounds": 50}
    whole = run(strategy, rounds=8, settings=faults, seed=seed)
    run(strategy, rounds=4, settings=faults, seed=seed, out=tmp_path / "run")
    same(
        whole,
        run(strategy, rounds=8, settings=faults, seed=seed, out=tmp_path / "run", resume=True),
    )


@pytest.mark.more
def test_what_means_nothing_where_nobody_waits_is_refused() -> None:
    for setting, value in (("min_answers", 3), ("over_selection", 1.5), ("buffer", 11)):
        with pytest.raises(ConfigError, match=setting):
            run("fedbuff_zo", settings={f"strategy.{setting}": value})
    few = {"strategy.buffer": 2, "strategy.aggregator": "median", "strategy.num_byzantine": 2}
    with pytest.raises(ConfigError, match=r"steps with 2 answers .*; raise strategy\.buffer"):
        run("fedbuff_zo", settings=few)
    nobody = {"fleet.online": 1e-6, "strategy.max_failed_rounds": 1}
    with pytest.raises(RunError, match="nobody could be reached for a day"):
        run("fedbuff_zo", settings=nobody)


def test_the_buffer_steps_more_often_than_the_cohort_waits() -> None:
    fleet = {"fleet.speed_spread": 1.0}
    waiting = run("fedzo", settings={**fleet, "fleet.preset": "mobile", "fleet.query_s": 0.05})
    going = run("fedbuff_zo", settings={**fleet, "strategy.buffer": 10})
    assert waiting.virtual is not None
    assert going.virtual is not None
    assert going.virtual.seconds < 0.7 * waiting.virtual.seconds


def test_old_answers_count_less() -> None:
    ages = torch.tensor([0, 1, 3, 8])
    assert StalenessConfig().weights(ages).tolist() == pytest.approx([1, 2**-0.5, 0.5, 1 / 3])
    constant = StalenessConfig(staleness="constant")
    assert constant.weights(ages).tolist() == [1, 1, 1, 1]
    hinge = StalenessConfig(staleness="hinge", staleness_power=10.0)
    assert hinge.weights(ages).tolist() == pytest.approx([1, 1, 1, 1 / 41])


def test_an_asynchronous_run_is_not_retimed_and_needs_a_clock(tmp_path: Path) -> None:
    import fedzo

    with pytest.raises(ConfigError, match="goes on while clients work, so it depends on its fleet"):
        fedzo.retime(run("fedbuff_zo"), "silo")
    with pytest.raises(ConfigError, match=r"takes a clock: set fleet\.preset"):
        run("fedbuff_zo", settings={"fleet.preset": "none"})
    wrong = CliRunner().invoke(
        app, ["run", "quadratic", "--strategy", "fedbuff_zo", "--set", "strategy.buffer=-1"]
    )
    assert wrong.exit_code == 2
    assert "buffer" in wrong.stderr


def test_a_robust_rule_bears_liars_among_late_answers() -> None:
    liars = {"byzantine.attack": "sign_flip", "byzantine.num_clients": 8}
    robust = {"strategy.aggregator": "median", "strategy.num_byzantine": 3}
    settings = {"strategy.buffer": 10, **liars}
    mean = run("fedbuff_zo", rounds=15, settings=settings)
    median = run("fedbuff_zo", rounds=15, settings={**settings, **robust})
    assert mean.final_value is not None
    assert median.final_value is not None
    assert median.final_value < mean.final_value


ARRIVAL = {"fleet.preset": "none", "engine.num_actors": 2, "engine.cluster_cpus": 2}


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("strategy", EACH)
def test_by_arrival_on_ray(strategy: str) -> None:
    found = run(strategy, engine="ray", settings=ARRIVAL)
    assert found.final_value is not None
    assert found.initial_value is not None
    assert found.final_value < found.initial_value
    assert found.virtual is None


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_by_arrival_a_buffer_for_all_is_federated_averaging() -> None:
    waiting = {"strategy.buffer": 0, "strategy.refill": "step"}
    one = run("fedbuff_zo", engine="ray", settings={**ARRIVAL, **waiting})
    other = run("fedzo", engine="inprocess")
    assert torch.equal(one.x, other.x)
    assert one.records[-1].bytes_up == other.records[-1].bytes_up
    assert one.records[-1].bytes_down == other.records[-1].bytes_down


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_by_arrival_the_budget_holds_and_a_run_goes_on(tmp_path: Path) -> None:
    found = run("fedbuff_zo", rounds=500, query_budget=3000, engine="ray", settings=ARRIVAL)
    assert 2900 < found.queries <= 3000
    assert list(found.stops) == ["budget"]
    run("fedbuff_zo", rounds=4, engine="ray", settings=ARRIVAL, out=tmp_path / "run")
    longer = run(
        "fedbuff_zo", rounds=9, engine="ray", settings=ARRIVAL, out=tmp_path / "run", resume=True
    )
    assert [record.round_index for record in longer.records] == list(range(10))
    assert all(a.queries < b.queries for a, b in itertools.pairwise(longer.records))

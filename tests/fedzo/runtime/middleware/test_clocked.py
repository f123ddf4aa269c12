"""The virtual clock: the same bits and times everywhere, and what lateness does to a run."""

from pathlib import Path
from typing import Any

import pytest
import torch

from scenarios.runs.experiment import make_experiment
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate

FLEET = {"fleet.preset": "fedscale", "fleet.query_s": 0.05}
SMALL = {"scenario.dim": 12}


def run(strategy: str = "fedzo", *, rounds: int = 4, clients: int = 6, **more: Any) -> RunResult:
    settings = {**SMALL, **more.pop("settings", {})}
    made = make_experiment(
        "quadratic", strategy, num_rounds=rounds, num_clients=clients, settings=settings,
        **{k: more.pop(k) for k in ("engine", "query_budget") if k in more},
    )  # fmt: skip
    return simulate(made, **more)


@pytest.mark.parametrize(
    "strategy", ["fedzo", "fzoos", "scaffold1", "fedamd", "monna", "seedzo", "fedzen"]
)
def test_x_moves_as_without_a_clock(strategy: str) -> None:
    plain, clocked = run(strategy), run(strategy, settings=FLEET)
    assert torch.equal(plain.x, clocked.x)
    assert plain.virtual is None
    took = clocked.virtual
    assert took is not None
    assert took.seconds > 0
    assert took.wasted == 0
    parts = took.down + took.compute + took.up + took.waiting
    assert parts == pytest.approx(took.seconds)
    times = [r.axis("virtual_seconds") for r in clocked.records]
    assert times == sorted(times)
    assert times[0] == 0


@pytest.mark.parametrize(
    "settings",
    [{"engine.chunk_size": 1}, {"engine.strict": True}, {"engine.chunk_size": 4}],
)
def test_the_times_are_those_of_every_way_to_compute(settings: dict[str, Any]) -> None:
    usual = run("fzoos", settings=FLEET)
    other = run("fzoos", settings={**FLEET, **settings})
    assert [r.virtual for r in usual.records] == [r.virtual for r in other.records]


@pytest.mark.slow
@pytest.mark.parametrize("actors", [1, 2])
def test_the_times_are_those_on_ray(actors: int) -> None:
    settings = {**FLEET, "fleet.drop_out": 0.2, "strategy.timeout_s": 30.0}
    usual = run("fzoos", settings=settings)
    other = run(
        "fzoos", engine="ray",
        settings={**settings, "engine.num_actors": actors, "engine.cluster_cpus": 2},
    )  # fmt: skip
    assert [r.virtual for r in usual.records] == [r.virtual for r in other.records]
    assert torch.equal(usual.x, other.x)


def test_who_is_late_or_lost_has_worked_and_costs_the_deadline() -> None:
    usual = run(settings=FLEET, rounds=1)
    ends = usual.records[1].virtual
    assert ends is not None
    late = run(settings={**FLEET, "strategy.timeout_s": 0.9 * ends.seconds}, rounds=1)
    record = late.records[1]
    assert record.virtual is not None
    assert record.virtual.seconds == 0.9 * ends.seconds
    assert record.virtual.wasted == len(record.failures) > 0
    assert set(record.failures.values()) == {"the answer came late"}
    assert record.queries == usual.records[1].queries
    lost = run(settings={**FLEET, "fleet.drop_out": 0.4, "strategy.timeout_s": 500.0}, rounds=1)
    record = lost.records[1]
    assert record.failures
    assert record.virtual is not None
    assert record.virtual.seconds == 500
    assert set(record.failures.values()) == {"no answer in time"}


def test_over_selection_asks_more_and_waits_for_as_many_as_were_wanted() -> None:
    settings = {**FLEET, "strategy.participation": 0.25}
    usual = run(clients=40, settings=settings)
    over = run(clients=40, settings={**settings, "strategy.over_selection": 1.6})
    assert [len(r.clients) for r in usual.records[1:]] == [10] * 4
    assert [len(r.clients) for r in over.records[1:]] == [16] * 4
    assert [r.clients_answered for r in over.records[1:]] == [10] * 4
    assert over.virtual is not None
    assert usual.virtual is not None
    assert over.virtual.wasted == 4 * 6
    assert over.virtual.seconds < usual.virtual.seconds
    assert over.queries == 1.6 * usual.queries


@pytest.mark.more
def test_slow_devices_are_heard_less_where_nobody_waits_for_them() -> None:
    fleet = {**FLEET, "strategy.participation": 0.25, "fleet.speed_spread": 1.0}
    over = run(clients=40, rounds=25, settings={**fleet, "strategy.over_selection": 2.0})
    assert over.participation_bias is not None
    assert over.participation_bias < -0.4
    waiting = run(clients=40, rounds=25, settings=fleet)
    assert waiting.participation_bias is not None
    assert abs(waiting.participation_bias) < 0.35
    assert run(settings=FLEET).participation_bias is None
    assert "participation bias" in repr(over)


def test_only_who_can_be_reached_is_asked() -> None:
    away = {**FLEET, "fleet.online": 0.5}
    some = run(clients=60, settings={**away, "strategy.participation": 0.2})
    assert [len(r.clients) for r in some.records[1:]] == [12] * 4
    assert not any(r.failures for r in some.records)
    night = {**FLEET, "fleet.online": 0.05, "strategy.max_failed_rounds": 300}
    few = run(clients=3, rounds=40, settings=night)
    waited = [r for r in few.records if len(r.failures) == len(r.clients) > 0]
    assert waited
    assert few.virtual is not None
    assert few.virtual.waiting > 599 * len(waited)
    nobody = waited[0].round_index
    before, after = few.records[nobody - 1], few.records[nobody]
    for name in ("floats_down", "bytes_down", "floats_up", "bytes_up", "queries"):
        assert getattr(before, name) == getattr(after, name), "nothing was sent, and nothing said"
    assert not after.jobs
    everybody = run(clients=60, settings=away)
    assert all(15 < len(r.clients) < 45 for r in everybody.records[1:])


def test_a_run_goes_on_at_the_same_times(tmp_path: Path) -> None:
    fleet = {**FLEET, "fleet.diurnal": 0.9, "fleet.stragglers": 0.3, "strategy.participation": 0.5}
    whole = run(rounds=7, settings=fleet, clients=12)
    run(rounds=3, settings=fleet, clients=12, out=tmp_path / "run")
    longer = run(rounds=7, settings=fleet, clients=12, out=tmp_path / "run", resume=True)
    assert [r.virtual for r in longer.records] == [r.virtual for r in whole.records]
    assert torch.equal(longer.x, whole.x)


def test_only_what_comes_in_time_has_travelled_up() -> None:
    """Whose answer is lost, late or not asked for adds nothing, whatever the server says of it."""
    late = {**FLEET, "strategy.participation": 0.25, "strategy.over_selection": 1.6}
    lost = {"faults.drop": 0.4}
    for settings in (late, {**FLEET, "fleet.drop_out": 0.3, "strategy.timeout_s": 300.0}, lost):
        found = run(clients=20, rounds=4, settings=settings)
        plain = run(clients=20, rounds=1)
        each = [getattr(plain.records[1], n) / 20 for n in ("floats_up", "bytes_up")]
        answered = sum(r.clients_answered for r in found.records)
        assert sum(len(r.failures) for r in found.records) > 0
        assert [found.records[-1].floats_up, found.records[-1].bytes_up] == [
            answered * one for one in each
        ]


def test_who_asks_everybody_waits_for_everybody() -> None:
    over = {**FLEET, "strategy.participation": 0.1, "strategy.over_selection": 1.5}
    found = run("mifa", clients=40, rounds=3, settings=over)
    asked = [(len(r.clients), r.clients_answered) for r in found.records[1:]]
    assert asked == [(40, 40), (6, 4), (6, 4)]


def test_crashed_clients_are_not_the_answers_that_are_enough() -> None:
    over = {**FLEET, "strategy.participation": 0.25, "strategy.over_selection": 2.0}
    found = run(clients=40, settings={**over, "faults.crash": 0.3})
    assert [r.clients_answered for r in found.records[1:]] == [10] * 4
    dropped = run(settings={**FLEET, "faults.drop": 0.4, "strategy.timeout_s": 900.0})
    missing = [r for r in dropped.records if r.failures]
    assert missing
    assert dropped.virtual is not None
    assert dropped.virtual.seconds >= 900 * len(missing)
    assert dropped.virtual.wasted == sum(len(r.failures) for r in missing)


@pytest.mark.more
def test_liars_that_learn_and_a_clock_go_on_together(tmp_path: Path) -> None:
    liars = {"byzantine.attack": "mimic_learned", "byzantine.num_clients": 2, **FLEET}
    for strategy in ("fedzo", "fedbuff_zo"):
        whole = run(strategy, rounds=8, settings=liars)
        run(strategy, settings=liars, out=tmp_path / strategy)
        longer = run(strategy, rounds=8, settings=liars, out=tmp_path / strategy, resume=True)
        assert torch.equal(whole.x, longer.x)
        assert [r.virtual for r in whole.records] == [r.virtual for r in longer.records]


def test_clients_with_one_budget_are_priced_until_it_ends() -> None:
    found = run(query_budget=700, settings=FLEET, rounds=50)
    assert found.queries <= 700
    assert found.virtual is not None


def test_what_a_clock_needs_is_said() -> None:
    from fedzo.errors import ConfigError

    with pytest.raises(ConfigError, match=r"set fleet\.query_s"):
        run(settings={"fleet.preset": "mobile"})
    with pytest.raises(ConfigError, match=r"fleet\.preset other than none"):
        run(settings={"strategy.over_selection": 1.3})
    with pytest.raises(ConfigError, match="participation below 1"):
        run(settings={**FLEET, "strategy.over_selection": 1.3})
    with pytest.raises(ConfigError, match="has no end on a virtual clock"):
        run(settings={**FLEET, "strategy.timeout_s": float("inf")})
    secret = {"strategy.secret_sample": True, "strategy.participation": 0.5}
    with pytest.raises(ConfigError, match="counts on a sample of all clients"):
        run("dp_fedzo", settings={**FLEET, **secret, "fleet.online": 0.5})
    with pytest.raises(ConfigError, match="no effect"):
        run(settings={"fleet.query_s": 1.0})

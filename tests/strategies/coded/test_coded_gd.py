"""Coded gradient descent is gradient descent, whoever is slow."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from fedzo.errors import ConfigError, RunError
from fedzo.objectives.cohort import cohort_gradient
from scenarios.runs.engines import build_scenario
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.retime import retime
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate

CODES: dict[str, dict[str, Any]] = {
    "gc": {"strategy.stragglers": 3},
    "gc, cyclic": {"strategy.stragglers": 2},
    "sr_sgc": {"strategy.code": "sr_sgc", "strategy.stragglers": 4},
    "m_sgc": {"strategy.code": "m_sgc", "strategy.stragglers": 2},
    "m_sgc, longer": {
        "strategy.code": "m_sgc", "strategy.stragglers": 8, "strategy.window": 3,
        "strategy.burst": 2,
    },
}  # fmt: skip
DELAYS = {"gc": 0, "gc, cyclic": 0, "sr_sgc": 1, "m_sgc": 1, "m_sgc, longer": 3}
SLOW = {
    "fleet.preset": "mobile", "fleet.query_s": 0.01, "fleet.stragglers": 0.2, "fleet.recovery": 0.5,
    "fleet.straggler_factor": 20.0,
}  # fmt: skip


def experiment(code: str, *, rounds: int = 12, clients: int = 32, **more: Any) -> Experiment:
    return make_experiment(
        more.get("scenario", "quadratic"),
        "coded_gd",
        num_rounds=rounds,
        num_clients=clients,
        seed=3,
        settings={"strategy.num_workers": 8, **CODES[code], **more.get("settings", {})},
    )


def run(code: str, **more: Any) -> RunResult:
    return simulate(experiment(code, **more), **more.get("given", {}))


def descended(delay: int, rounds: int) -> torch.Tensor:
    """Return x after gradient descent with gradients so many rounds old."""
    scenario = build_scenario(experiment("gc"))
    problem = scenario.problem(0)
    points = [problem.initial_x]
    for now in range(1, rounds + 1):
        x = points[-1]
        if now > delay:
            cohort = scenario.cohort(range(32), 0)
            old = points[now - 1 - delay]
            gradient = cohort_gradient(cohort, old.expand(32, -1)).mean(0)
            x = (x - 0.1 * gradient).clamp(problem.lower, problem.upper)
        points.append(x)
    return points[-1]


@pytest.mark.parametrize("code", CODES)
def test_steps_are_those_of_gradient_descent(code: str) -> None:
    torch.testing.assert_close(run(code).x, descended(DELAYS[code], 12), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("code", CODES)
def test_so_they_are_where_machines_are_slow(code: str) -> None:
    slow = run(code, settings=SLOW)
    torch.testing.assert_close(slow.x, descended(DELAYS[code], 12), rtol=1e-9, atol=1e-9)
    assert slow.records[-1].virtual is not None
    assert slow.records[-1].virtual.wasted > 0
    assert slow.records[-1].round_index == 12


@pytest.mark.parametrize("code", CODES)
def test_the_load_is_what_is_counted(code: str) -> None:
    made = experiment(code)
    scheme = made.config("strategy").scheme(32)
    records = run(code).records
    spent = [b.gradients - a.gradients for a, b in itertools.pairwise(records)]
    assert max(spent) <= scheme.load * 32 * 8
    if code != "m_sgc, longer":  # nothing is repeated there, where nobody straggles
        assert spent[-1] == scheme.load * 32 * 8


@pytest.mark.more
@pytest.mark.parametrize("code", ["gc, cyclic", "sr_sgc", "m_sgc, longer"])
def test_the_wire_and_a_checkpoint_change_nothing(code: str, tmp_path: Path) -> None:
    whole = run(code, settings=SLOW)
    strict = run(code, settings={**SLOW, "engine.strict": True})
    assert torch.equal(whole.x, strict.x)
    run(code, settings=SLOW, rounds=5, given={"out": tmp_path})
    resumed = run(code, settings=SLOW, given={"out": tmp_path, "resume": True})
    assert torch.equal(whole.x, resumed.x)
    assert whole.records[-1].virtual == resumed.records[-1].virtual


def test_coding_over_rounds_bears_bursts_at_less_load() -> None:
    """Bursts of one round: M-SGC has half of GC's load and seldom waits; without code all wait."""
    world = {
        "fleet.preset": "silo", "fleet.query_s": 0.01, "fleet.speed_spread": 0.0,
        "fleet.stragglers": 0.1, "fleet.recovery": 1.0, "fleet.straggler_factor": 10.0,
    }  # fmt: skip
    codes: dict[str, dict[str, Any]] = {
        "none": {"strategy.stragglers": 0},
        "gc": {"strategy.stragglers": 3},
        "m_sgc": {"strategy.code": "m_sgc", "strategy.stragglers": 4},
    }
    seconds = {
        name: run("gc", settings={**world, **told}, rounds=40, clients=48).records[-1].virtual
        for name, told in codes.items()
    }
    assert seconds["m_sgc"].seconds < seconds["gc"].seconds < seconds["none"].seconds
    assert seconds["m_sgc"].compute < 0.7 * seconds["gc"].compute


def test_lost_answers_make_a_round_void_and_nothing_wrong() -> None:
    faults = {"faults.drop": 0.15, "strategy.max_failed_rounds": 20}
    lossy = run("m_sgc", rounds=30, settings=faults)
    moved = [r for a, r in itertools.pairwise(lossy.records) if r.value != a.value]
    assert 2 < len(moved) < 29, "some rounds were void, others not"
    expected = descended(1, len(moved) + 1)
    torch.testing.assert_close(lossy.x, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(RunError, match="machines have answered, by which a gradient could not"):
        run("gc", settings={"faults.crash": 0.9})


@pytest.mark.more
def test_float32_is_as_exact_under_a_cyclic_code() -> None:
    """Sums travel in float64: decoding enlarges what they are wrong by, 3e5 times at worst."""
    world: dict[str, Any] = {"scenario": "classification", "clients": 12, "rounds": 5}
    told = {"strategy.num_workers": 12, "strategy.server_lr": 0.3}
    plain = run("gc", settings={**told, "strategy.stragglers": 0}, **world)
    hurry = {**SLOW, "fleet.stragglers": 0.5, "strategy.patience": 1.0}
    del hurry["fleet.query_s"]
    coded = run("gc", settings={**told, **hurry, "strategy.stragglers": 4}, **world)
    assert coded.records[-1].virtual.wasted > 10  # type: ignore[union-attr]
    torch.testing.assert_close(coded.x, plain.x, rtol=1e-4, atol=1e-6)


def test_all_clients_are_machines_unless_told_otherwise() -> None:
    made = make_experiment("quadratic", "coded_gd", num_rounds=3, num_clients=5)
    assert simulate(made).records[-1].gradients == 3 * 5 * 2


@pytest.mark.more
def test_networks_are_trained() -> None:
    made = run("m_sgc", scenario="classification", rounds=8, settings={"strategy.server_lr": 0.3})
    assert made.records[-1].value is not None
    assert made.records[-1].value < made.records[0].value  # type: ignore[operator]


@pytest.mark.parametrize(
    ("settings", "clients", "match"),
    [
        ({"strategy.stragglers": 8}, 32, "stragglers=8 must be from 0 to 7"),
        ({"strategy.participation": 0.5}, 32, "participation=0.5 must be 1"),
        ({"strategy.burst": 2}, 32, r"strategy\.burst=2 has no effect"),
        ({"strategy.patience": 0.5}, 32, "patience=0.5 must be at least 1"),
        ({}, 6, "clients=6 must be 8 or more"),
        ({}, 12, "clients=12 cannot be divided into the 8 equal units .* use 16"),
    ],
)
def test_what_cannot_be_coded_is_refused(
    settings: dict[str, Any], clients: int, match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        run("gc", settings=settings, clients=clients)


def test_black_boxes_have_no_gradients() -> None:
    with pytest.raises(ConfigError, match="gradient"):
        run("gc", scenario="attack")


def test_a_run_is_not_re_timed() -> None:
    with pytest.raises(ConfigError, match="depends on its fleet"):
        retime(run("gc"), "mobile", query_s=0.05)

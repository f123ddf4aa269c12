"""Every strategy gives what it gave, to the last bit, on every engine.

Counts must agree anywhere; values and bits where the machine's arithmetic is that on which
golden.json was written, elsewhere to four digits: slopes of float32 losses, which some cases have,
magnify the last bit of a value by the inverse of the step.
"""

import json
from typing import Any

import pytest
from counting_device import PLACE, Device
from golden.runs import CASES, GOLDEN, SETTINGS, arithmetic, experiment, settings_of, written

from clients.app import build_client_app
from fedzo.runtime.device import DeviceEnvironment
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from scenarios.runs import engines
from scenarios.runs.engines import ExperimentEnvironment
from scenarios.runs.names import STRATEGIES
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate

WRITTEN = json.loads(GOLDEN.read_text())
SAME_BITS = WRITTEN["arithmetic"] == arithmetic()
COHORT = ("fzoos-official", "diff2-walk")
"""Runs whose arithmetic is of the cohort as a whole, so that single clients round otherwise."""
FEW = (
    "fedzo-residual",
    "scaffold2",
    "monna",
    "fedamd-slopes",
    "diff2_zo",
    "fzoos-on_client",
    "dp_fedavg",
)
"""Runs over messages by default: memory at clients, several exchanges, slopes, peers, noise."""
HONEST = [name for name, (*_, more) in CASES.items() if "byzantine.attack" not in more]


def check(result: RunResult, wanted: dict[str, Any], *, same_bits: bool = SAME_BITS) -> None:
    found = written(result)
    digits = 1e-9 if same_bits else 1e-4
    assert found["value"] == pytest.approx(wanted["value"], rel=digits, abs=1e-12)
    inexact = () if same_bits else ("value", "bits", "x")
    assert {k: v for k, v in found.items() if k not in inexact} == {
        k: v for k, v in wanted.items() if k not in inexact
    }


def on_a_grid(name: str) -> RunResult:
    """Return the run of a case over messages, with one node a client."""
    made = experiment(name, engine="superlink")
    app = build_client_app(ExperimentEnvironment(made.to_toml()))
    return simulate(made, grid=InProcessGrid(app, num_clients=made.num_clients))


@pytest.mark.parametrize("name", CASES)
def test_in_process(name: str) -> None:
    check(simulate(experiment(name)), WRITTEN["runs"][name])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in CASES]
)
def test_through_the_wire(name: str) -> None:
    check(simulate(experiment(name, **{"engine.strict": True})), WRITTEN["runs"][name])


@pytest.mark.parametrize("name", FEW)
def test_some_on_a_grid(name: str) -> None:
    check_on_a_grid(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", HONEST)
def test_on_a_grid(name: str) -> None:
    check_on_a_grid(name)


def check_on_a_grid(name: str) -> None:
    alike = SAME_BITS and name not in COHORT
    check(on_a_grid(name), WRITTEN["runs"][name], same_bits=alike)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("name", CASES)
def test_on_ray(name: str) -> None:
    alike = SAME_BITS and name not in COHORT
    result = simulate(experiment(name, engine="ray"))
    check(result, WRITTEN["runs"][name], same_bits=alike)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_on_a_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that refuses to be mixed with the CPU, nothing comes back but answers."""
    monkeypatch.setattr(engines, "on_device", lambda world, _: DeviceEnvironment(world, PLACE))
    with Device() as device:
        check(simulate(experiment(name)), WRITTEN["runs"][name])
    assert device.up


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_setting_keeps_its_name_its_default_and_its_place(strategy: str) -> None:
    wanted = json.loads(SETTINGS.read_text())[strategy]
    assert list(settings_of(strategy).items()) == list(wanted.items())

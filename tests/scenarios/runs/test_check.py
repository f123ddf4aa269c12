"""An objective is asked a few times before a run, and what it says is counted and judged."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fedzo
from fedzo.objectives.modules import ModuleObjective
from fedzo.randomness import stream
from scenarios.cli import app

OWN = """
from fedzo import CallableObjective

def box(client):
    return CallableObjective(
        function=lambda x: float(((x - client) ** 2).sum()), dim=8, lower=-1.0, upper=2.0
    )

def boom(client):
    def ask(x):
        raise ValueError("no licence")
    return CallableObjective(function=ask, dim=8)

def nothing(client):
    return CallableObjective(function=lambda x: None, dim=8)

def unknown(client):
    return CallableObjective(function=lambda x: float("nan"), dim=8)

def three(client):
    return 3

def broken(client):
    return client.objective
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return str(path)


def asked(*words: str) -> Any:
    return CliRunner().invoke(app, ["check", *words])


def test_the_command_says_what_an_objective_is(own: str) -> None:
    done = asked(f"{own}:box", "--client", "2")
    assert done.exit_code == 0, done.stderr
    for said in ("client 2", "within [-1, 2]", "18", "black box", "one point at a time"):
        assert said in done.stdout
    assert "two answers at the start are equal" in done.stdout
    assert "cost: 4 queries\n" in done.stdout
    found = json.loads(asked(f"{own}:box", "--json").stdout)
    assert found["dim"] == 8
    assert found["value"] == 2.0
    assert (found["queries"], found["gradients"], found["resolved"]) == (4, 0, True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("boom", "ValueError: no licence (own.py, line 11)"),
        ("nothing", "the function returned [None] for 1 points of dim 8"),
        ("nothing", "(own.py, line 15)"),
        ("unknown", "a non-finite value (nan), 1 of 1 (own.py, line 18)"),
        ("three", "returned 3 for client 0"),
        ("three", "(own.py, line 20)"),
        ("broken", "AttributeError: 'int' object has no attribute 'objective' (own.py, line 24)"),
        ("bex", "has no 'bex'; it has boom, box"),
    ],
)
def test_errors_end_in_a_sentence_with_the_users_own_line(own: str, name: str, said: str) -> None:
    done = asked(f"{own}:{name}")
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("quadratic",), "must be file.py:name"),
        (("{own}:box", "--mu", "0"), "mu=0.0 must be a positive number"),
        (("{own}:box", "--client", "-1"), "client=-1 must be 0 or more"),
    ],
)
def test_wrong_words_are_refused(own: str, words: tuple[str, ...], said: str) -> None:
    done = asked(*(word.format(own=own) for word in words))
    assert done.exit_code == 2
    assert said in done.stderr


def test_queries_are_those_that_the_function_was_asked() -> None:
    calls: list[Any] = []
    noise = stream(0, "test")

    def noisy(x: Any) -> float:
        calls.append(x)
        return float(x.sum()) + float(noise.standard_normal())

    found = fedzo.check(fedzo.CallableObjective(function=noisy, dim=3))
    assert found.queries == len(calls) == 8
    assert 0.3 < found.noise < 3
    assert not found.resolved
    assert found.better_mu is not None
    assert found.better_mu >= 10 * found.mu
    steps = [np.linalg.norm(x) for x in calls]
    assert sorted(steps) == pytest.approx([0.0] * 6 + [found.mu] * 2)


def test_noise_is_told_from_a_slope_at_most_radii() -> None:
    noise = stream(1, "test")
    steep = fedzo.CallableObjective(
        function=lambda x: 1e3 * float(x.sum()) + float(noise.standard_normal()), dim=3
    )
    assert fedzo.check(steep, mu=1.0).resolved
    flat = fedzo.CallableObjective(function=lambda _: float(noise.standard_normal()), dim=3)
    seen = [fedzo.check(flat).resolved for _ in range(100)]
    assert sum(seen) <= 5


def test_rounding_hides_a_radius_that_is_too_small() -> None:
    far = fedzo.CallableObjective(function=lambda x: 1e9 + float(x.sum()), dim=2)
    assert not fedzo.check(far, mu=1e-9).resolved
    assert fedzo.check(far, mu=1e-2).resolved
    rounded = fedzo.CallableObjective(function=lambda x: round(float(x.sum()), 3), dim=2)
    found = fedzo.check(rounded, mu=1e-6)
    assert (found.difference, found.resolved) == (0.0, False)


def test_gradients_examples_and_kinds_are_found() -> None:
    smooth = fedzo.TorchObjective(function=lambda x: x.square().sum(-1), dim=3)
    found = fedzo.check(smooth)
    assert (found.has_gradient, found.batched, found.gradients) == (True, True, 1)
    assert found.lower == -math.inf
    assert fedzo.check(fedzo.Maximize(smooth)).kind == "Maximize of TorchObjective"
    opaque = fedzo.TorchObjective(function=lambda x: x.detach().square().sum(-1), dim=3)
    assert not fedzo.check(opaque).has_gradient
    counter = itertools.count()
    black = fedzo.CallableObjective(function=lambda x: float(x.sum() + 0 * next(counter)), dim=3)
    found = fedzo.check(fedzo.Maximize(black))
    assert (found.has_gradient, found.batched, next(counter)) == (False, False, 4)
    module = torch.nn.Linear(2, 1)
    data = torch.ones(5, 2), torch.zeros(5, 1)
    net = ModuleObjective(
        module=module, inputs=data[0], targets=data[1], loss=torch.nn.functional.mse_loss
    )
    found = fedzo.check(lambda _: net)
    assert (found.dim, found.examples, found.has_gradient) == (3, 5, True)
    assert found.floor > 1e-8 * abs(found.value)  # it computes in float32

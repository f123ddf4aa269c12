"""The examples of docs/examples run."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clients import build_client_app, make_rules
from fedzo.adversary.lies import ByzantineConfig
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.runtime.engine import Engine
from fedzo.runtime.flower.engine import FlowerEngine
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from fedzo.runtime.middleware.byzantine import Byzantine
from scenarios import federate
from strategies import Outcome, run_rounds
from strategies.core.driver import RunSettings

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.slow
@pytest.mark.source_tree
@pytest.mark.parametrize("name", ["attack_your_model", "attack_onnx", "attack_http"])
def test_attack_examples(name: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "success_rate" in done.stdout


@pytest.mark.source_tree
def test_a_network_is_trained_in_place() -> None:
    example = runpy.run_path(str(EXAMPLES / "in_place.py"))
    before = float(example["objective"](0).own_value())
    result = federate(example["objective"], num_clients=2, strategy="mezo", num_rounds=20)
    assert result.queries == 2 * (20 * 2 + 21)
    assert float(example["objective"](0).own_value()) != before


OWN = EXAMPLES / "own_question.py"
N, D = 5, 6


def bowl(client: int) -> TorchObjective:
    return TorchObjective(function=lambda x: (x - 0.1 * client).square().sum(-1), dim=D)


def vote(engine: Engine, example: dict[str, Any], budget: int | None = None) -> Outcome:
    problem = OpenProblem(initial_x=torch.ones(D, dtype=torch.float64))
    settings = RunSettings(num_clients=N, num_rounds=30, seed=3, query_budget=budget)
    return run_rounds(example["MajorityVote"](), engine, problem, settings)


@pytest.mark.more
@pytest.mark.source_tree
def test_an_own_question_gives_the_same_bits_in_process_and_over_the_wire() -> None:
    example = runpy.run_path(str(OWN))
    rules = {**make_rules(), example["Vote"]: example["answer_vote"]}
    stacked = vote(InProcessEngine(FunctionEnvironment(bowl), rules, strict=True), example)
    grid = InProcessGrid(build_client_app(bowl, rules=rules), num_clients=N, strict=True)
    wired = vote(FlowerEngine(grid, poll_s=0.001), example)
    assert torch.equal(stacked.state.x, wired.state.x)
    values = [record.value or 0.0 for record in stacked.records]
    assert values[-1] < 0.2 * values[0]
    assert stacked.records[1].queries - stacked.records[0].queries == N * (2 * 4 + 1)
    assert vote(InProcessEngine(FunctionEnvironment(bowl), rules), example, 150).stop == "budget"


@pytest.mark.source_tree
def test_two_liars_among_five_have_two_votes() -> None:
    example = runpy.run_path(str(OWN))
    rules = {**make_rules(), example["Vote"]: example["answer_vote"]}
    attack = ByzantineConfig(attack="sign_flip", num_clients=2)
    inner = InProcessEngine(FunctionEnvironment(bowl), rules)
    values = [
        r.value or 0.0 for r in vote(Byzantine(inner, attack, [0, 4], seed=0), example).records
    ]
    assert values[-1] < 0.3 * values[0]


@pytest.mark.source_tree
def test_an_own_question_takes_at_most_sixty_lines() -> None:
    assert len(OWN.read_text().splitlines()) <= 60


@pytest.mark.slow
@pytest.mark.source_tree
def test_the_demo_draws_three_methods_and_says_what_was_won(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py", tmp_path],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "FZooS, improved took " in done.stdout
    assert (tmp_path / "demo.png").stat().st_size > 20_000

"""Input that once ended in a traceback, in silence, or in a remedy that was none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

from fedzo import ModuleObjective
from fedzo.attacks.victims.gate import read_scores
from fedzo.errors import ConfigError, FedzoWarning, RunError
from scenarios import federate
from scenarios.cli.app import app

X, Y = torch.linspace(-1, 1, 80).reshape(20, 4), torch.arange(20) % 2


def said(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert "Traceback" not in done.stderr
    return done.exit_code, done.stderr


def table(path: Path, *rows: str) -> list[str]:
    path.write_text("a,b,y\n" + "".join(f"{row}\n" for row in rows))
    run = ["run", "regression", "--strategy", "fedavg", "--clients", "1", "--rounds", "1"]
    told = {"data": "csv", "scaling": "data", "target": "y", "path": str(path)}
    return [*run, *(word for n, v in told.items() for word in ("--set", f"scenario.{n}={v}"))]


def test_a_table_of_one_row_is_too_short(tmp_path: Path) -> None:
    status, told = said(*table(tmp_path / "one.csv", "1,2,3"))
    assert (status, "rows of the table=1 must be at least 2" in told) == (2, True), told


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_numbers_whose_spread_overflows_are_named(tmp_path: Path) -> None:
    rows = ["1,2,3", "2,1,4", "1e200,1,5", "-1e200,2,6", "3,2,1", "1e200,1,2"]
    status, told = said(*table(tmp_path / "large.csv", *rows))
    assert (status, "'a' holds numbers as large as 1e+200" in told) == (2, True), told


@pytest.mark.parametrize("epsilon", ["1e40", "1e200", "-1", "0"])
def test_budgets_of_no_meaning_are_refused(epsilon: str) -> None:
    status, told = said(
        "run", "regression", "--strategy", "dp_gd", "--set", f"strategy.epsilon={epsilon}"
    )
    assert (status, "must be positive and at most 1e+09" in told) == (2, True), told


@pytest.mark.parametrize(
    ("inputs", "targets", "sentence"),
    [(X[:0], Y[:0], "0 inputs and 0 targets"), (X, Y[:7], "20 inputs and 7 targets")],
)
def test_examples_that_are_none_are_refused(
    inputs: torch.Tensor, targets: torch.Tensor, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ModuleObjective(nn.Linear(4, 2), functional.cross_entropy, inputs, targets)


@pytest.mark.parametrize("strategy", ["fedavg", "fedzo", "seed_scalar"])
def test_a_loss_of_many_numbers_is_said_to_be_one(strategy: str) -> None:
    def many(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs, targets, reduction="none")

    objective = ModuleObjective(nn.Linear(4, 2), many, X, Y)
    with pytest.raises(RunError, match="the loss returned 20 numbers; it must return one"):
        federate(lambda _: objective, num_clients=2, num_rounds=1, strategy=strategy)


def test_what_looks_like_a_sigmoid_is_warned_of() -> None:
    shares = np.linspace(0.1, 0.9, 6)[:, None]
    with pytest.warns(FedzoWarning, match="set victim.tells=probabilities"):
        read_scores(shares, 6, "logits", partial=False)


@pytest.mark.filterwarnings("error::fedzo.errors.FedzoWarning")
def test_other_scores_are_not() -> None:
    logits = np.linspace(-2, 2, 6)[:, None]
    labels, _ = read_scores(logits, 6, "logits", partial=False)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    read_scores(np.linspace(0.1, 0.9, 6)[:, None], 6, "probabilities", partial=False)


def test_more_actors_than_there_is_room_for_are_refused() -> None:
    status, told = said(
        "run", "quadratic", "--rounds", "1", "--set", "scenario.dim=3",
        "--engine", "ray", "--set", "engine.num_actors=3", "--set", "engine.cluster_cpus=2",
    )  # fmt: skip
    assert (status, "engine.num_actors=3 do not fit: there is room for 2" in told) == (2, True)

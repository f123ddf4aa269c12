"""Metrics of one's own: of vectors, of modules, in place, where nodes have models; and refusals."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fedzo.errors import ConfigError, RunError
from fedzo.objectives.objective import CallableObjective, Maximize, ModuleObjective
from fedzo.records.history import AXES, RoundRecord, read_history
from scenarios import federate
from scenarios.cli.app import app
from scenarios.problems.custom import CustomConfig, CustomScenario
from scenarios.problems.own_metrics import TAKEN
from scenarios.problems.remote import RemoteConfig, RemoteScenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.rehearsal import rehearsed

INPUTS = torch.linspace(-2, 2, 120).reshape(40, 3).cos()
LABELS = INPUTS.sum(dim=1).gt(0).long()
FILE = """
import numpy as np
import fedzo


def box(client):
    return fedzo.CallableObjective(function=lambda x: float(((x - 0.1 * client) ** 2).sum()), dim=4)


def measured(x):
    assert x.dtype == np.float64 and x.shape == (4,)
    return {"far": float(np.abs(x - 0.05).max())}
"""


def box(client: int) -> CallableObjective:
    return CallableObjective(function=lambda x: float(((x - 0.1 * client) ** 2).sum()), dim=4)


def net() -> nn.Module:
    made = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.9), nn.Linear(4, 2))
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return made


def training(client: int) -> ModuleObjective:
    return ModuleObjective(net(), nn.functional.cross_entropy, INPUTS[client::2], LABELS[client::2])


def accuracy(module: nn.Module) -> Mapping[str, Any]:
    assert not torch.is_grad_enabled()
    return {"test_accuracy": (module(INPUTS).argmax(1) == LABELS).float().mean()}


def typed(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_of_a_vector_at_every_record() -> None:
    found = federate(
        box, num_clients=2, num_rounds=3, metrics=lambda x: {"far": np.abs(x - 0.05).max()}
    )
    told = [record.metrics["far"] for record in found.records]
    assert len(told) == 4
    assert told[0] == 0.05
    assert told[-1] == pytest.approx(float((found.x - 0.05).abs().max()))
    assert found.metrics == {"far": told[-1]}
    assert found.queries == federate(box, num_clients=2, num_rounds=3).queries


@pytest.mark.parametrize("strategy", ["fedavg", "mezo", "seed_scalar"])
def test_of_a_module_wherever_x_is(strategy: str) -> None:
    found = federate(training, strategy=strategy, num_clients=2, num_rounds=4, metrics=accuracy)
    module = net()
    found.load_into(module)
    with torch.no_grad():
        assert found.metrics["test_accuracy"] == float(accuracy(module.eval())["test_accuracy"])
    assert all("test_accuracy" in record.metrics for record in found.records)


def test_the_module_is_a_copy() -> None:
    own = net()

    def spoils(module: nn.Module) -> Mapping[str, float]:
        for parameter in module.parameters():
            parameter.zero_()
        module.train()
        return {"zero": 1.0}

    def shared(client: int) -> ModuleObjective:
        return ModuleObjective(own, nn.functional.cross_entropy, INPUTS, LABELS)

    runs = [
        federate(shared, strategy="fedavg", num_clients=2, num_rounds=2, metrics=each)
        for each in (spoils, None)
    ]
    assert torch.equal(runs[0].x, runs[1].x)


def test_of_what_is_maximized_and_of_each_nodes_model() -> None:
    found = federate(
        lambda client: Maximize(training(client)),
        strategy="monna",
        num_clients=2,
        num_rounds=2,
        metrics=accuracy,
    )
    last = found.records[-1]
    own = [told["test_accuracy"] for told in last.nodes.values()]
    assert last.metrics["test_accuracy"] == pytest.approx(sum(own) / 2)


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        (lambda x: 3.0, "the metrics are 3.0; return a dict of names and numbers"),
        (lambda x: {1: 2.0}, "return a dict of names"),
        (lambda x: {"queries": 1.0}, "queries, which a run tells itself; choose another name"),
        (lambda x: {"a b": 1.0}, "the metrics name 'a b'; use letters, digits and _"),
        (lambda x: {"a": "x"}, "the metric a is 'x'; it must be one real number"),
        (lambda x: {"a": [1.0, 2.0]}, "it must be one real number"),
        (lambda x: {"a": 1 / 0}, "the metrics raised ZeroDivisionError"),
    ],
)
def test_what_is_no_metric_ends_in_a_sentence(metrics: Any, told: str) -> None:
    with pytest.raises(RunError, match=told):
        federate(box, num_clients=2, num_rounds=1, metrics=metrics)


def test_names_that_a_run_tells_itself_are_taken() -> None:
    found = federate(box, num_clients=2, num_rounds=1)
    own = {*found.summary(), *AXES, *(each.name for each in fields(RoundRecord))}
    live = {"problem", "round", "F", "best", "queries", "left", "bytes", "virtual", "epsilon"}
    assert own | live | {"answered", "ETA"} <= TAKEN


def test_from_a_file_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    common = ["--strategy", "fedzo", "--clients", "2", "--rounds", "2"]
    named = ["--set", f"scenario.metrics={file}:measured"]
    out = tmp_path / "run"
    shown = typed("run", f"{file}:box", *common, *named, "--out", out, "--json")
    far = json.loads(shown)["metrics"]["far"]
    assert 0 < far < 0.05
    assert [record.metrics["far"] for record in read_history(out / "history.jsonl")][-1] == far
    typed("plot", out, "--y", "far", "--out", tmp_path / "far.svg")
    swept = typed(
        "sweep", f"{file}:box", *common, *named, "--set", "strategy.local_lr=0.001,0.01",
        "--measure", "lowest:far", "--out", tmp_path / "sweep", "--json",
    )  # fmt: skip
    assert json.loads(swept)["best"]["strategy.local_lr"] == 0.01


def test_a_dry_run_asks_for_none() -> None:
    asked: list[Any] = []
    world = CustomScenario(
        CustomConfig(),
        num_clients=2,
        seed=0,
        make_objective=box,
        metrics=lambda x: {"asked": float(asked.append(x) is None)},
    )
    experiment = make_experiment("custom", "fedzo", num_rounds=2, num_clients=2)
    assert rehearsed(experiment, world).a_run["queries"] > 0
    assert not asked


@pytest.mark.parametrize("name", ["nothing", "FILE"])
def test_a_name_that_is_no_function_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{FILE}\nFILE = 3\n")
    settings = {"scenario.metrics": f"{file}:{name}"}
    with pytest.raises(ConfigError, match=r"it has box, measured|must be a function of x"):
        federate(box, num_clients=2, settings=settings)


def test_in_a_deployment_of_nodes_the_server_measures(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    config = RemoteConfig(dim=4, metrics=f"{file}:measured")
    world = RemoteScenario(config, num_clients=2, seed=0)
    problem = world.problem(0)
    told = problem.report(problem.initial_x + 0.3, torch.tensor([1.0, 3.0]))
    assert told.value == 2.0
    assert told.metrics["far"] == pytest.approx(0.25)


def test_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scenario\.metrics has no effect where metrics="):
        federate(
            box,
            num_clients=2,
            metrics=accuracy,
            settings={"scenario.metrics": "mine.py:measured"},
        )

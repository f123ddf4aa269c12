"""Runs on disk as data: x, best x, state, settings, tables; foreign and damaged directories."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import fedzo
from fedzo.errors import CheckpointError, ConfigError, FedzoError, RunError
from fedzo.objectives.objective import ModuleObjective, flatten_parameters
from scenarios.cli.app import app
from scenarios.problems.custom import CustomScenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.listing import list_runs
from scenarios.runs.simulate import RunResult, federate, simulate
from scenarios.runs.stored import by_label


def run(out: Path | None, *, rounds: int = 4, seed: int = 0, **settings: Any) -> RunResult:
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    experiment = make_experiment(
        "quadratic", "scaffold2", num_rounds=rounds, num_clients=3, seed=seed,
        settings={"scenario.dim": 5, "faults.drop": 0.3, **dotted},
    )  # fmt: skip
    return simulate(experiment, out=out)


def test_a_stored_run_is_what_simulate_has_returned(tmp_path: Path) -> None:
    result = run(tmp_path)
    found = fedzo.load_run(tmp_path)
    assert found.finished
    assert found.records == result.records
    assert found.settings == result.experiment.settings
    assert torch.equal(found.x, result.x)
    assert torch.equal(found.best_x, result.best_x)
    assert found.best_round == result.best_round
    assert found.queries == result.queries
    assert found.result.summary() == result.summary()
    assert torch.equal(found.state.x, result.x)
    assert found.state.control.shape == (5,)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), result.x.numpy())
    np.testing.assert_array_equal(np.load(tmp_path / "best_x.npy"), result.best_x.numpy())


@pytest.mark.parametrize("line", ['num_rounds = "five"', "seed = true", "strategy = 3"])
def test_an_experiment_of_other_types_is_told(tmp_path: Path, line: str) -> None:
    run(tmp_path)
    file = tmp_path / "experiment.toml"
    name = line.partition(" ")[0]
    lines = [each for each in file.read_text().splitlines() if not each.startswith(("#", name))]
    file.write_text("\n".join([line, *lines]) + "\n")
    with pytest.raises(ConfigError, match=name):
        fedzo.load_run(tmp_path)
    done = CliRunner().invoke(app, ["watch", "--once", str(tmp_path)])
    assert done.exit_code in (1, 2)
    assert name in done.stderr


def test_what_a_private_run_has_spent_is_stored(tmp_path: Path) -> None:
    settings = {"scenario.dim": 5, "strategy.epsilon": 2.0}
    made = make_experiment("quadratic", "dp_fedzo", num_rounds=3, num_clients=3, settings=settings)
    result = simulate(made, out=tmp_path)
    stored = fedzo.load_run(tmp_path).result.spent
    assert stored is not None
    assert result.spent is not None
    assert torch.equal(stored.whole.rows, result.spent.whole.rows)
    assert run(tmp_path / "open").spent is None
    assert fedzo.load_run(tmp_path / "open").result.spent is None


def test_a_run_that_goes_on_is_read_as_of_its_last_checkpoint(tmp_path: Path) -> None:
    seen = []

    def look(snapshot: Any) -> None:
        if snapshot.record.round_index == 0:
            stored = fedzo.load_run(tmp_path)
            seen.append((stored.finished, len(stored.records), stored.x, stored.best_round))

    experiment = make_experiment("quadratic", "fedzo", num_rounds=1, settings={"scenario.dim": 5})
    result = simulate(experiment, out=tmp_path, callbacks=[look])
    [(finished, records, x, best_round)] = seen
    assert (finished, records, best_round) == (False, 1, 0)
    assert not torch.equal(x, result.x)


def test_a_table_has_every_number_of_the_history(tmp_path: Path) -> None:
    result = run(tmp_path / "method" / "seed-3", seed=3)
    frame = fedzo.load_run(tmp_path / "method" / "seed-3").to_frame()
    assert len(frame) == len(result.records) == 5
    assert frame["value"].tolist() == [record.value for record in result.records]
    assert frame["metrics.gap"].tolist() == [record.metrics["gap"] for record in result.records]
    assert frame["failures"].tolist() == [record.failures for record in result.records]
    assert frame["clients_failed"].sum() == sum(len(r.failures) for r in result.records) > 0
    last = result.records[-1]
    assert frame["client_queries"].iloc[-1] == dict(
        zip(last.clients, last.client_queries, strict=True)
    )
    assert frame["run"].unique().tolist() == [str(tmp_path / "method")]
    assert frame["seed"].unique().tolist() == [3]


def test_without_pandas_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install 'fedzo"):
        fedzo.load_run(tmp_path).to_frame()


def test_runs_below_a_directory_come_by_method_and_seed(tmp_path: Path) -> None:
    for seed in (10, 2):
        run(tmp_path / "a" / f"seed-{seed}", seed=seed)
    run(tmp_path / "b")
    found = fedzo.load_runs(tmp_path, tmp_path / "a")
    labels = {label: [r.experiment.seed for r in runs] for label, runs in by_label(found).items()}
    assert labels == {"a": [2, 10], "b": [0]}


def test_foreign_and_damaged_directories_end_in_sentences(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        fedzo.load_run(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no history"):
        fedzo.load_runs(tmp_path)
    out = tmp_path / "run"
    run(out)
    with pytest.raises(ConfigError, match="use load_runs"):
        fedzo.load_run(tmp_path)
    (out / "result.json").write_text("[")
    with pytest.raises(CheckpointError, match="cannot be read"):
        fedzo.load_run(out).result.summary()
    (out / "checkpoint" / "current.safetensors").write_bytes(b"torn")
    (out / "result.json").unlink()
    with pytest.raises(CheckpointError, match="the one before"):
        _ = fedzo.load_run(out).x
    history = out / "history.jsonl"
    history.write_text(history.read_text().replace("queries", "queried", 1))
    with pytest.raises(CheckpointError, match="is not a round record"):
        fedzo.load_run(out)
    toml = out / "experiment.toml"
    written = toml.read_text()
    for damaged in (
        written.replace("seed = 0", "seed = 1"),
        "no TOML [",
        "seed = 1\n",
        "set = 3\n",
        'set = {a = 1}\nscenario = "x"\n',
    ):
        toml.write_text(damaged)
        with pytest.raises(FedzoError):
            fedzo.load_run(out)


@pytest.mark.parametrize("left", [-40, 0])
def test_a_history_that_has_lost_lines_is_noticed(tmp_path: Path, left: int) -> None:
    out = tmp_path / "run"
    run(out)
    whole = (out / "history.jsonl").read_bytes()
    (out / "history.jsonl").write_bytes(whole[:left])
    with pytest.raises(CheckpointError, match=r"ends after .* queries, and result\.json speaks of"):
        fedzo.load_run(out)
    done = CliRunner().invoke(app, ["watch", "--once", str(out)])
    assert done.exit_code == 1
    assert "lines are missing" in " ".join(done.stderr.split())
    assert [row.life for row in list_runs(tmp_path)] == ["damaged"]


def small() -> nn.Module:
    net = nn.Linear(2, 1)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(1.0)
    return net


def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (outputs.squeeze(-1) - labels).square().mean()


def inputs(client: int) -> torch.Tensor:
    return torch.linspace(-1, 1, 8).reshape(4, 2) + client


def objective(client: int) -> ModuleObjective:
    return ModuleObjective(small(), loss, inputs(client), torch.zeros(4))


@pytest.mark.parametrize("strategy", ["fedzo", "mezo"])
def test_x_and_the_best_x_are_written_into_a_module(tmp_path: Path, strategy: str) -> None:
    settings = {"strategy.server_lr": 0.01} if strategy == "mezo" else None
    result = federate(
        objective, num_clients=2, strategy=strategy, num_rounds=5, settings=settings, out=tmp_path
    )
    stored = fedzo.load_run(tmp_path)
    for best in (False, True):
        one, two = small(), small()
        result.load_into(one, best=best)
        stored.load_into(two, best=best)
        assert torch.equal(flatten_parameters(one), flatten_parameters(two))
        values = [float(loss(one(inputs(c)), torch.zeros(4))) for c in range(2)]
        told = result.best_value if best else result.final_value
        assert sum(values) / 2 == pytest.approx(told, rel=1e-5)
    if strategy == "mezo":
        with pytest.raises(RunError, match="load_into"):
            _ = result.best_x
        assert not (tmp_path / "x.npy").exists()


def test_a_log_is_replayed_from_its_own_start_alone(tmp_path: Path) -> None:
    """A module of another size, start or split into frozen and trained parts is refused."""
    settings = {"strategy.server_lr": 0.01}

    def told(rounds: int, make: Any, *, resume: bool = False) -> RunResult:
        experiment = make_experiment(
            "custom", "mezo", num_rounds=rounds, num_clients=2, settings=settings
        )
        config = experiment.config("scenario")
        scenario = CustomScenario(config, num_clients=2, seed=0, make_objective=make)
        return simulate(experiment, scenario=scenario, out=tmp_path, resume=resume)

    result = told(3, objective)
    other, wider, frozen = small(), torch.nn.Linear(3, 1), small()
    other.bias.data[0] += 1e-6
    frozen.bias.requires_grad_(False)
    stored = fedzo.load_run(tmp_path)
    for module in (other, wider, frozen):
        before = flatten_parameters(module)
        for load in (result.load_into, result.replay_, stored.load_into):
            with pytest.raises(ConfigError, match="does not begin where the run began"):
                load(module)
        assert torch.equal(flatten_parameters(module), before)
    with pytest.raises(ConfigError, match="other parameters than when this run began"):
        told(5, lambda client: replace(objective(client), module=other), resume=True)
    assert len(told(5, objective, resume=True).records) == 6


def test_clients_whose_modules_begin_elsewhere_are_refused() -> None:
    """A network that is made anew for each client, without a seed, is another one each time."""

    def unseeded(client: int) -> ModuleObjective:
        module = small()
        module.bias.data[0] = float(client)
        return replace(objective(client), module=module)

    with pytest.raises(ConfigError, match=r"does not begin where the run began.*same seed"):
        federate(unseeded, num_clients=2, strategy="mezo", num_rounds=1)
    assert federate(unseeded, num_clients=2, strategy="fedzo", num_rounds=1).records


def test_a_run_that_nobody_judged_has_no_best_x() -> None:
    experiment = make_experiment(
        "quadratic", "dp_fedzo", num_rounds=2,
        settings={"strategy.unit": "client", "strategy.evaluate_every": 0, "scenario.dim": 3},
    )  # fmt: skip
    result = simulate(experiment)
    result = RunResult(
        result.experiment, [], result.solutions, {}, result.stops, None, bests=[None]
    )
    assert result.best_round is None
    with pytest.raises(RunError, match="was judged"):
        _ = result.best_x

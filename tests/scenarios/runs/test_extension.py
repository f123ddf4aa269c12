"""A finished run is extended to the bits of one long run, or refused in a sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner
from worlds import few_steps

from fedzo.errors import CheckpointError, ConfigError, RunError
from fedzo.objectives.objective import CallableObjective
from fedzo.records.history import RoundRecord
from scenarios.cli import app
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.experiment_file import sealed_toml
from scenarios.runs.simulate import RunResult, federate, simulate


def made(rounds: int, strategy: str = "fedzo", **settings: Any) -> Experiment:
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    outer = {name: dotted.pop(name) for name in ("engine", "query_budget") if name in dotted}
    return make_experiment(
        "quadratic", strategy, num_rounds=rounds, num_clients=4, **outer,
        settings={"scenario.dim": 6, **few_steps(strategy), **dotted},
    )  # fmt: skip


def timeless(run: RunResult) -> list[RoundRecord]:
    return [replace(record, wall_s=0.0) for record in run.records]


def agree(extended: RunResult, whole: RunResult) -> None:
    assert timeless(extended) == timeless(whole)
    assert torch.equal(extended.x, whole.x)
    assert torch.equal(extended.best_x, whole.best_x)
    assert extended.best_round == whole.best_round


CASES: list[tuple[str, dict[str, Any]]] = [
    ("fedzo", {"strategy__participation": 0.5, "client__estimator": "residual"}),
    ("scaffold2", {"strategy__evaluate_every": 5, "faults__drop": 0.2, "faults__reorder": 0.5}),
    ("monna", {"byzantine__attack": "mimic", "byzantine__num_clients": 1}),
    ("fzoos", {"query_budget": 10_000}),
    ("dp_fedzo", {"strategy__noise_multiplier": 2.0, "strategy__epsilon": 1000.0,
                        "strategy__unit": "client"}),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_was_heard_before_goes_on_where_nobody_answers(
    tmp_path: Path, seed: int
) -> None:
    """Whether anybody has answered, and how many rounds in a row have failed, is of the run."""
    settings = {"faults__drop": 0.6, "strategy__max_failed_rounds": 2}

    def ends(rounds: int, resume: bool) -> str:
        experiment = replace(made(rounds, **settings), num_clients=2, seed=seed)
        try:
            return str(simulate(experiment, out=tmp_path / f"{resume}", resume=resume).stops)
        except RunError as error:
            return str(error)

    simulate(replace(made(0, **settings), num_clients=2, seed=seed), out=tmp_path / "True")
    whole = ends(8, resume=False)
    told = [ends(rounds, resume=True) for rounds in range(1, 9)]
    failed = [each for each in told if "rounds" not in each]
    assert (failed[:1] or told[-1:]) == [whole]


@pytest.mark.more
@pytest.mark.parametrize(("strategy", "settings"), CASES, ids=[name for name, _ in CASES])
def test_a_run_is_extended_to_the_bits_of_a_long_one(
    tmp_path: Path, strategy: str, settings: dict[str, Any]
) -> None:
    whole = simulate(made(8, strategy, **settings), out=tmp_path / "whole")
    simulate(made(5, strategy, **settings), out=tmp_path / "cut")
    extended = simulate(made(8, strategy, **settings), out=tmp_path / "cut", resume=True)
    agree(extended, whole)
    names = ("experiment.toml", "x.npy", "best_x.npy")
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = simulate(made(8, strategy, **settings), out=tmp_path / "cut", resume=True)
    agree(again, whole)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("engine", ["inprocess", "ray"])
def test_fifty_rounds_extended_to_eighty_are_a_run_of_eighty(tmp_path: Path, engine: str) -> None:
    whole = simulate(made(80, engine=engine), out=tmp_path / "whole")
    simulate(made(50, engine=engine), out=tmp_path / "cut")
    agree(simulate(made(80, engine=engine), out=tmp_path / "cut", resume=True), whole)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_nodes_of_flower_go_on_from_what_they_kept(tmp_path: Path) -> None:
    settings = {"engine": "flower", "client__estimator": "residual"}
    whole = simulate(made(6, **settings), out=tmp_path / "whole")
    simulate(made(4, **settings), out=tmp_path / "cut")
    agree(simulate(made(6, **settings), out=tmp_path / "cut", resume=True), whole)


def test_what_kills_an_extension_leaves_it_to_be_resumed(tmp_path: Path) -> None:
    def die(snapshot: Any) -> None:
        if snapshot.record.round_index == 7:
            raise KeyboardInterrupt

    simulate(made(5), out=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        simulate(made(9), out=tmp_path / "cut", resume=True, callbacks=[die])
    resumed = simulate(made(9), out=tmp_path / "cut", resume=True)
    agree(resumed, simulate(made(9)))


def test_a_run_killed_between_its_last_round_and_its_end_is_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(snapshot: Any) -> None:
        if snapshot.record.round_index == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("scenarios.runs.rundir.CHECKPOINT_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        simulate(made(5), out=tmp_path, callbacks=[die])
    simulate(made(5), out=tmp_path, resume=True)
    agree(simulate(made(8), out=tmp_path, resume=True), simulate(made(8)))


def test_an_unfinished_run_may_get_more_rounds_too(tmp_path: Path) -> None:
    def die(snapshot: Any) -> None:
        if snapshot.record.round_index == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(made(5), out=tmp_path, callbacks=[die])
    agree(simulate(made(8), out=tmp_path, resume=True), simulate(made(8)))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("fedzo", {"query_budget": 200}, "query budget was spent"),
    ("fedzo", {"strategy__evaluate_every": 2}, "strategy.evaluate_every=2"),
    ("fedzo", {"strategy__evaluate_every": 0}, "strategy.evaluate_every=0"),
    ("dp_fedzo", {"strategy__unit": "client"}, "noise was made for the releases of 5 rounds"),
    ("diff2", {"strategy__lr_decay": "linear", "strategy__epsilon": float("inf")}, "lr_decay"),
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "settings", "why"), REFUSED, ids=[r[2] for r in REFUSED])
def test_what_cannot_be_extended_is_refused_and_left_as_it_was(
    tmp_path: Path, strategy: str, settings: dict[str, Any], why: str
) -> None:
    simulate(made(5, strategy, **settings), out=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="cannot be extended") as told:
        simulate(made(8, strategy, **settings), out=tmp_path, resume=True)
    assert why in str(told.value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_several_problems_and_callbacks_that_ended_a_run_are_refused(tmp_path: Path) -> None:
    def two(rounds: int) -> Any:
        from scenarios.runs.simulate import build_scenario

        scenario = build_scenario(made(rounds))
        scenario.num_problems = 2  # type: ignore[misc]
        return scenario

    simulate(made(2), out=tmp_path / "two", scenario=two(2))
    with pytest.raises(ConfigError, match="poses 2 problems"):
        simulate(made(3), out=tmp_path / "two", scenario=two(3), resume=True)
    simulate(made(5), out=tmp_path / "ended", callbacks=[lambda s: s.record.round_index == 2])
    with pytest.raises(ConfigError, match="ended by a callback"):
        simulate(made(8), out=tmp_path / "ended", resume=True)


def test_a_run_cannot_be_shortened_or_changed(tmp_path: Path) -> None:
    simulate(made(5), out=tmp_path)
    with pytest.raises(ConfigError, match="extended but not shortened to 4"):
        simulate(made(4), out=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="another experiment"):
        simulate(made(8, scenario__noise_std=0.5), out=tmp_path, resume=True)
    toml = tmp_path / "experiment.toml"
    toml.write_text(toml.read_text().replace("num_rounds = 5", "num_rounds = 7"))
    with pytest.raises(ConfigError, match="changed or damaged"):
        simulate(made(8), out=tmp_path, resume=True)
    toml.write_text(sealed_toml(made(5).to_toml()))
    head = tmp_path / "checkpoint" / "current.safetensors"
    head.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="to go on from the one before"):
        simulate(made(8), out=tmp_path, resume=True)


def test_the_command_says_why_and_its_status_is_two(tmp_path: Path) -> None:
    def run(rounds: int, *more: str) -> Any:
        words = ["run", "quadratic", "--strategy", "fedzo", "--out", str(tmp_path / "run")]
        return CliRunner().invoke(app, [*words, "--rounds", str(rounds), *more])

    assert run(3).exit_code == 0
    done = run(2, "--resume")
    assert done.exit_code == 2
    assert "cannot be" not in done.stderr
    assert "not shortened to 2" in done.stderr
    assert run(4, "--resume").exit_code == 0


def test_the_best_is_of_a_judged_round_and_is_kept_over_a_resume(tmp_path: Path) -> None:
    """F rises after round 1: objectives of an adversary who moves the minimum away."""
    asked = 0

    def function(x: torch.Tensor) -> float:
        nonlocal asked
        asked += 1
        return float((x**2).sum()) + (1000.0 if asked > 60 else 0.0)

    def make(client: int) -> CallableObjective:
        return CallableObjective(function=function, dim=3)

    def run(rounds: int, **more: Any) -> RunResult:
        settings = {"client.num_directions": 2, "strategy.local_steps": 2}
        return federate(
            make, num_clients=2, num_rounds=rounds, initial_x=[1.0, 2.0, 3.0],
            settings=settings, **more,
        )  # fmt: skip

    result = run(8, out=tmp_path)
    values = [record.value for record in result.records]
    assert result.best_value == min(values) == values[result.best_round]
    assert 0 < result.best_round < 8
    assert float((result.best_x**2).sum()) == pytest.approx(result.best_value)
    assert not torch.equal(result.best_x, result.x)


def test_no_run_of_a_comparison_is_extended_where_one_cannot_be(tmp_path: Path) -> None:
    from scenarios.runs.compare import compare

    base = {"scenario": "quadratic", "num_clients": 3, "settings": {"scenario.dim": 4}}
    both = ["fedzo", "private=dp_fedzo"]
    compare({**base, "num_rounds": 2}, both, [0], out=tmp_path)
    before = (tmp_path / "fedzo" / "seed-0" / "history.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="noise was made for"):
        compare({**base, "num_rounds": 3}, both, [0], out=tmp_path, resume=True)
    assert (tmp_path / "fedzo" / "seed-0" / "history.jsonl").read_bytes() == before


LOOKS_AT_ROUNDS = {"strategies/private/diff2.py", "strategies/private/privacy.py"}


@pytest.mark.source_tree
def test_only_what_is_refused_depends_on_the_number_of_rounds() -> None:
    """A method that looks at plan.num_rounds must be refused by scenarios/runs/extension.py."""
    root = Path(__file__).parents[3]
    files = [p for room in ("strategies", "clients") for p in (root / room).rglob("*.py")]
    found = {str(p.relative_to(root)) for p in files if "plan.num_rounds" in p.read_text()}
    assert found == LOOKS_AT_ROUNDS

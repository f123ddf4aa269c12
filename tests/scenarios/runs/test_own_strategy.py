"""Strategies of the user's run as built-in ones do: by reference, as a class, as an object."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from own_files import STILL
from typer.testing import CliRunner

from fedzo.errors import ConfigError, FedzoWarning
from fedzo.objectives.objective import TorchObjective
from fedzo.protocol.questions.training_config import FirstOrderConfig, ZerothOrderConfig
from scenarios import federate, make_experiment, simulate
from scenarios.cli.app import app
from scenarios.cli.starters.strategy import Starter, StarterConfig
from scenarios.runs.compare import compare
from scenarios.runs.engines import RulesOf
from scenarios.runs.own_strategy import named
from strategies import FedAvg, FedAvgConfig

STARTERS = Path(__file__).parents[3] / "scenarios" / "cli" / "starters"
EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "own_question.py"
SMALL: dict[str, Any] = {"num_rounds": 3, "num_clients": 3}
FAST = {"scenario.dim": 8, "client.num_directions": 3, "strategy.local_steps": 2}
NAME = "scenarios.cli.starters.strategy:Starter"


@pytest.fixture
def drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, which is the current one, with a strategy in it."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "drift.py"
    file.write_text((STARTERS / "strategy.py").read_text().replace("Starter", "Drift"))
    return file


def final(strategy: Any, **more: Any) -> torch.Tensor:
    settings = {**FAST, **more.pop("settings", {})}
    experiment = make_experiment("quadratic", strategy, settings=settings, **SMALL, **more)
    return simulate(experiment).solutions[0]


def test_a_file_a_class_and_an_object_are_one_strategy(drift: Path) -> None:
    from_file = final("drift.py:Drift", settings={"strategy.beta": 0.3})
    assert torch.equal(from_file, final(Starter, settings={"strategy.beta": 0.3}))
    assert torch.equal(from_file, final(Starter(StarterConfig(beta=0.3))))
    assert not torch.equal(from_file, final("drift.py:Drift", settings={"strategy.beta": 0.9}))


def test_a_strategy_without_settings_runs_and_its_result_is_printed(drift: Path) -> None:
    (drift.parent / "still.py").write_text(STILL)
    done = CliRunner().invoke(
        app, ["run", "quadratic", "--strategy", "still.py:Still", "--rounds", "2"]
    )
    assert done.exit_code == 0, done.output
    assert "rounds (1)" in done.output


def test_without_momentum_it_is_fedzo(drift: Path) -> None:
    own = final("drift.py:Drift", settings={"strategy.beta": 0.0})
    fedzo = final("fedzo")
    assert torch.allclose(own, fedzo, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy.beta": 2}, "strategy.beta=2.0 must be 0 or more, and below 1"),
        ({"strategy.beta": "much"}, "strategy.beta='much' is not allowed"),
        ({"strategy.bet": 0.5}, "unknown setting strategy.bet; did you mean strategy.beta?"),
        ({"client.mu": -1}, "client.mu=-1"),
    ],
)
def test_its_settings_are_checked_as_those_of_others(
    drift: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_experiment("quadratic", "drift.py:Drift", settings=settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Drift: pass\n", "name a class that derives from"),
        ("Drift = 3\n", "drift.py:Drift' is 3; name a class"),
        ("def other(): pass\n", "drift.py has no 'Drift'; it has other"),
        (
            "from strategies.core.base import RoundStrategy\n"
            "class Drift(RoundStrategy):\n    def init(self, x, num_clients): return x\n",
            "has no round, rounds; write them",
        ),
        (
            "from strategies.core.configured import ConfiguredStrategy\n"
            "class Drift(ConfiguredStrategy):\n"
            "    def init(self, x, n): return x\n    def round(self, s, p): yield []\n",
            "does not say the class of its settings",
        ),
    ],
)
def test_what_is_no_strategy_is_told(drift: Path, text: str, said: str) -> None:
    drift.write_text(text)
    with pytest.raises(ConfigError, match=said):
        make_experiment("quadratic", "drift.py:Drift")


def test_a_run_is_written_down_and_resumed_and_changed_code_is_said(drift: Path) -> None:
    experiment = make_experiment("quadratic", "drift.py:Drift", settings=FAST, **SMALL)
    whole = simulate(experiment).solutions[0]
    simulate(experiment, out="run", callbacks=[lambda seen: seen.record.round_index == 1])
    assert json.loads(Path("run/code.json").read_text()) == {"drift.py": drift.read_text()}
    assert 'strategy = "drift.py:Drift"' in Path("run/experiment.toml").read_text()
    shutil.rmtree("run")
    simulate(experiment, out="run")
    resumed = simulate(experiment, out="run", resume=True)
    assert torch.equal(resumed.solutions[0], whole)
    drift.write_text(drift.read_text().replace("beta: float", "# more\n    beta: float"))
    with pytest.warns(FedzoWarning, match=r"drift.py has changed since .*run began \(fir"):
        simulate(experiment, out="run", resume=True)


def test_a_changed_file_is_another_strategy_in_the_same_process(drift: Path) -> None:
    before = final("drift.py:Drift")
    drift.write_text(drift.read_text().replace("beta: float = 0.5", "beta: float = 0.0"))
    assert not torch.equal(final("drift.py:Drift"), before)


def test_a_question_of_its_own_is_answered_on_every_engine() -> None:
    name, settings = f"{EXAMPLE}:MajorityVote", {"scenario.dim": 8}
    plain = make_experiment("quadratic", name, settings=settings, **SMALL)
    strict = make_experiment(
        "quadratic", name, settings={**settings, "engine.strict": True}, **SMALL
    )
    moved = simulate(plain).solutions[0]
    assert torch.equal(moved, simulate(strict).solutions[0])
    start = simulate(make_experiment("quadratic", name, num_rounds=0, settings=settings))
    assert not torch.equal(moved, start.solutions[0])


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("engine", ["ray", "flower"])
def test_other_processes_find_the_rules(drift: Path, engine: str) -> None:
    for name in (f"{EXAMPLE}:MajorityVote", "drift.py:Drift"):
        settings = FAST if "drift" in name else {"scenario.dim": 8}
        chunks = {**settings, "engine.chunk_size": 1}
        here = make_experiment("quadratic", name, settings=chunks, **SMALL)
        there = make_experiment("quadratic", name, engine=engine, settings=settings, **SMALL)
        assert torch.equal(simulate(here).solutions[0], simulate(there).solutions[0])


def test_objects_are_named_by_the_table_where_it_has_them() -> None:
    assert named(FedAvg)[0] == "fedzo"
    exact = FedAvg(FedAvgConfig(local_lr=0.5), client=FirstOrderConfig())
    name, settings = named(exact)
    assert (name, settings["strategy.local_lr"]) == ("fedavg", 0.5)
    assert named(Starter)[0] == NAME
    mine = named(Starter(StarterConfig(), client=ZerothOrderConfig(mu=0.5)))
    assert (mine[0], mine[1]["client.mu"]) == (NAME, 0.5)


def test_what_cannot_be_written_down_is_refused() -> None:
    class Local(Starter):
        """It lies in a function."""

    for given in (Local, Local(StarterConfig())):
        with pytest.raises(ConfigError, match="define it with class or def at the top level"):
            make_experiment("quadratic", given)
    with pytest.raises(ConfigError, match="cannot be written down; give a name, a class, or"):
        named(3)


def bowl(client: int) -> TorchObjective:
    return TorchObjective(function=lambda x: (x - client).square().sum(-1), dim=4)


def middle(vectors: torch.Tensor, *, num_byzantine: int) -> torch.Tensor:
    return vectors.sort(dim=0).values[len(vectors) // 2]


def test_federate_takes_a_class_and_a_function() -> None:
    settings: Any = {"strategy.aggregator": middle, "strategy.num_byzantine": 1}
    result = federate(bowl, num_clients=3, strategy=Starter, num_rounds=2, settings=settings)
    assert result.experiment.settings["strategy.aggregator"] == f"{__name__}:middle"
    assert result.final_value is not None


def test_a_comparison_labels_them(drift: Path) -> None:
    base = {"scenario": "quadratic", "settings": {**FAST, "Drift:strategy.beta": 0.3}, **SMALL}
    chosen: list[Any] = ["drift.py:Drift", "calm=drift.py:Drift", Starter(StarterConfig(beta=0.3))]
    found = compare(base, chosen, [0])
    means = {row.strategy: row.means["final_value"] for row in found.rows}
    assert list(means) == ["Drift", "calm", "Starter"]
    assert means["Drift"] == means["Starter"] != means["calm"]


def test_the_command_line_runs_lists_and_refuses(drift: Path) -> None:
    def said(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
        return done.exit_code, done.output

    sizes = ("--rounds", "2", "--clients", "2", "--set", "scenario.dim=8")
    code, told = said(
        "run", "quadratic", "--strategy", "drift.py:Drift", *sizes, "--set", "strategy.beta=0"
    )
    assert (code, "drift.py:Drift" in told) == (0, True)
    code, told = said("list", "drift.py:Drift")
    assert code == 0
    assert all(word in told for word in ("strategy.beta", "client.num_directions", "0.5"))
    assert "scenario.dim" not in told
    code, told = said("list", "quadratic", "--strategy", "drift.py:Drift")
    assert (code, "strategy.beta" in told, "scenario.dim" in told) == (0, True, True)
    code, told = said("run", "quadratic", "--strategy", "fedz")
    assert (code, "unknown strategy 'fedz'; did you mean fedzo?" in told) == (2, True)
    code, told = said("list", "drift.py:Drift", "--engine", "ray")
    assert (code, "--engine ray has no effect with drift.py:Drift" in told) == (2, True)


def test_rules_travel_as_the_name_of_their_strategy(drift: Path) -> None:
    rules = RulesOf(f"{EXAMPLE}:MajorityVote")
    text = pickle.dumps(rules)
    assert b"own_question.py:MajorityVote" in text
    assert len(text) < 200
    assert pickle.loads(text).keys() == rules.keys()
    assert pickle.dumps(RulesOf("drift.py:Drift")).count(str(drift).encode()) == 1

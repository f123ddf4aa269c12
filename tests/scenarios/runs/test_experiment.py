"""Experiments resolve, refuse, and survive TOML."""

import tomllib
from pathlib import Path

import pytest

from fedzo.errors import ConfigError
from fedzo.protocol.questions.training_config import FirstOrderConfig
from scenarios.runs.config_file import read_experiment
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.names import SCENARIOS, STRATEGIES

slow = pytest.mark.slow
NEED_GRADIENTS = ("first_order", "coded", "peer_gradient")
PAIRS = [
    (scenario, strategy)
    for scenario, entry in SCENARIOS.items()
    for strategy, method in STRATEGIES.items()
    if not (entry.build.black_box and method.rule in NEED_GRADIENTS)
]


SOME = {"quadratic": STRATEGIES, **dict.fromkeys(("regression", "custom"), ("diff2", "mezo"))}


@pytest.mark.parametrize(
    ("scenario", "strategy"),
    [
        pytest.param(*pair, marks=() if pair[1] in ("fedzo", *SOME.get(pair[0], ())) else slow)
        for pair in PAIRS
    ],
)
def test_every_pair_resolves_and_survives_toml(
    scenario: str, strategy: str, tmp_path: Path
) -> None:
    experiment = make_experiment(scenario, strategy, seed=3, query_budget=1000)
    path = tmp_path / "experiment.toml"
    path.write_text(experiment.to_toml())
    assert make_experiment(**read_experiment(path)) == experiment
    assert tomllib.loads(experiment.to_toml())["set"]["strategy"]["participation"] == 1.0


def test_given_over_suggested_over_default() -> None:
    default = make_experiment("quadratic", "fedavg").settings
    assert (
        default["strategy.local_lr"]
        == SCENARIOS["quadratic"].build.suggested[FirstOrderConfig]["strategy.local_lr"]
    )
    given = make_experiment("quadratic", "fedavg", settings={"strategy.local_lr": 0.5})
    assert given.settings["strategy.local_lr"] == 0.5
    assert make_experiment("quadratic", "fedzo").settings["strategy.local_lr"] == 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "cubic"}, "unknown scenario 'cubic'; allowed: quadratic"),
        ({"strategy": "fedsgd"}, "unknown strategy 'fedsgd'; "),
        ({"engine": "rey"}, "unknown engine 'rey'; did you mean ray[?] allowed: inpro"),
        ({"scenario": "attack", "strategy": "fedavg"}, "black box; use fedzo"),
        ({"num_rounds": -1}, "rounds=-1 must be 0 or more"),
        ({"num_clients": 0}, "clients=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be 0 or more"),
        ({"query_budget": 3}, "query_budget=3 must be at least 5"),
        ({"settings": {"scenario.dims": 3}}, "did you mean scenario.dim"),
        (
            {"settings": {"scenario.objective": "a.py:f"}},
            "is a setting of the scenario custom, not",
        ),
        ({"settings": {"client.mu": -1.0}}, "client.mu=-1.0 must be a positive number"),
        ({"settings": {"client.directions": "cauchy"}}, "Input should be 'gaussian'"),
        ({"settings": {"engine.chunk_size": -1}}, "engine.chunk_size=-1 must be 0"),
    ],
)
def test_bad_experiments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_experiment(**{"scenario": "quadratic", "strategy": "fedzo", **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("scenario = ", "no TOML"),
        ("scenari = 'quadratic'", "did you mean scenario"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "x.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_experiment(path)


def test_a_setting_of_other_clients_is_told_as_such() -> None:
    with pytest.raises(ConfigError, match=r"client\.mu is a setting of other .*fzoos have .*gamma"):
        make_experiment("quadratic", "fzoos", settings={"client.mu": 0.1})
    with pytest.raises(ConfigError, match=r"did you mean client\.num_directions"):
        make_experiment("quadratic", "fedzo", settings={"client.num_direction": 3})


def test_what_was_called_add_remove_is_read_by_its_name_of_now() -> None:
    made = make_experiment("regression", "dp_gd", settings={"strategy.adjacency": "zero_out"})
    before = made.to_toml().replace("zero_out", "add_remove")
    assert Experiment.from_toml(before) == made
    with pytest.raises(ConfigError, match="adjacency"):
        make_experiment("regression", "dp_gd", settings={"strategy.adjacency": "add_remove"})

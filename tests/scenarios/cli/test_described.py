"""What is stored of all settings is what the code says of them."""

import json
from dataclasses import asdict, replace

import pytest
from typer.testing import CliRunner

from fedzo.errors import ConfigError
from scenarios.cli.app import app
from scenarios.cli.describe import described as of_the_code
from scenarios.cli.describe import written
from scenarios.cli.described import STORED, sections_of, stored, told
from scenarios.runs.experiment import make_experiment
from scenarios.runs.names import ENGINES, SCENARIOS, STRATEGIES

CASES = {
    *((scenario, name, "inprocess") for scenario in SCENARIOS for name in ("fedzo", "dp_zo")),
    *((scenario, name, "inprocess") for scenario in ("quadratic", "attack") for name in STRATEGIES),
    *(("quadratic", "diff2", engine) for engine in ENGINES),
}


def test_the_file_holds_what_the_code_says() -> None:
    remedy = "run: make settings"
    assert STORED.read_text() == written(of_the_code()), remedy


def test_no_two_classes_of_settings_share_a_name() -> None:
    classes = {entry.config for table in (SCENARIOS, STRATEGIES) for entry in table.values()}
    assert len({cls.__name__ for cls in classes}) == len(classes)


def shown(*names: str) -> object:
    """Return what is listed, or why nothing is."""
    try:
        parts = sections_of(stored(), *names)
    except ConfigError as error:
        return str(error)
    return [(name, value) for part in parts for name, value, *_ in part.rows]


def resolved(scenario: str, strategy: str, engine: str) -> object:
    try:
        settings = make_experiment(scenario, strategy, engine=engine).settings
    except ConfigError as error:
        return str(error)
    return [(name, told(value)) for name, value in settings.items()]


@pytest.mark.parametrize("names", sorted(CASES), ids="-".join)
def test_values_and_refusals_are_those_of_an_experiment(names: tuple[str, str, str]) -> None:
    assert shown(*names) == resolved(*names)


def test_what_is_not_stored_is_asked_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    run, words = CliRunner(), stored()
    wanted = run.invoke(app, ["list", "quadratic"]).output
    less = {"ackley": words.sections["scenario"]["multimodal"]}
    before = replace(words, sections={**words.sections, "scenario": less})
    monkeypatch.setattr("scenarios.cli.list.stored", lambda: before)
    assert "scenario.heterogeneity" in wanted
    assert run.invoke(app, ["list", "quadratic"]).output == wanted


def test_unknown_names_are_refused() -> None:
    for arguments, sentence in (
        (["nothing"], "unknown scenario 'nothing'; allowed: quadratic"),
        (["quadratic", "--strategy", "nothing"], "unknown strategy 'nothing'; allowed: fedavg"),
    ):
        done = CliRunner().invoke(app, ["list", *arguments])
        assert done.exit_code == 2
        assert sentence in " ".join(done.output.split())


def test_the_file_is_read_as_it_was_written() -> None:
    assert asdict(stored()) == json.loads(STORED.read_text())

"""The command `fedzo init`."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import tomli_w
import typer

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from fedzo.records.storage import write_whole
from fedzo.user_code import is_reference
from scenarios.cli.described import Section
from scenarios.cli.options import DEFAULT_STRATEGY, guard


def init_command(
    scenario: Annotated[
        str,
        typer.Argument(help="what is optimized; `fedzo list` names them all; or file.py:function"),
    ],
    strategy: Annotated[str, typer.Option(help="how; `fedzo list` names them")] = DEFAULT_STRATEGY,
    engine: Annotated[str, typer.Option(help="who runs the clients")] = "inprocess",
    out: Annotated[
        Path | None, typer.Option(help="the file to write (default: SCENARIO.toml)")
    ] = None,
) -> None:
    """Write a TOML file with every setting of an experiment, explained, for `fedzo run --config`.

    Settings are comments that show their defaults: take away the # of those to change.

    Example: fedzo init quadratic --strategy fzoos
    """
    typer.echo(guard(lambda: _written(scenario, strategy, engine, out)))


def _written(scenario: str, strategy: str, engine: str, out: Path | None) -> str:
    """Write the file, and return what to do with it."""
    own = scenario if is_reference(scenario) else ""
    name = "custom" if own else scenario
    file = out or Path(f"{own.rpartition(':')[2] or name}.toml")
    if file.exists():
        raise ConfigError(f"{file} exists already; give another --out, or move it away")
    text = commented(name, strategy, engine, own)
    try:
        write_whole(file, text)
    except OSError as error:
        raise ConfigError(f"--out {file} cannot be written: {error.strerror}") from error
    return f"wrote {file}. Change it, and run it: fedzo run --config {file}"


def commented(scenario: str, strategy: str, engine: str, objective: str = "") -> str:
    """Return an experiment as TOML: what it is made of, and its settings as comments.

    Raises ConfigError for unknown names, and for pairs that do not go together.
    """
    from scenarios.cli.list import settings_of  # what it needs of the code imports torch
    from scenarios.runs.experiment import make_experiment

    given: dict[str, Scalar] = {"scenario.objective": objective} if objective else {}
    experiment = make_experiment(scenario, strategy, engine=engine, settings=given)
    head = {
        "scenario": scenario,
        "strategy": strategy,
        "engine": engine,
        "num_rounds": experiment.num_rounds,
        "num_clients": experiment.num_clients,
        "seed": experiment.seed,
    }
    parts = [
        "# An experiment: fedzo run --config FILE. Options of the command line are over what it"
        " says.\n# Settings show their defaults; take away the # of those to change.",
        tomli_w.dumps(head) + "# query_budget = 10000  # most queries of all clients together",
    ]
    sections = settings_of(scenario, strategy, engine)
    parts += [_section(each, experiment.settings, given) for each in sections]
    return "\n\n".join(parts) + "\n"


def _section(section: Section, values: Mapping[str, Scalar], given: Mapping[str, Scalar]) -> str:
    """Return a section's texts as comments, and a line for every setting."""
    lines = [f"[set.{section.name}]"]
    for text in section.texts:
        for paragraph in text.splitlines():
            lines += [f"# {line}" for line in textwrap.wrap(paragraph, 98)]
    for full, _, allowed, used_with in section.rows:
        if full not in values:
            continue
        setting = tomli_w.dumps({full.partition(".")[2]: values[full]}).strip()
        told = f"{allowed}; with {used_with}" if used_with else allowed
        lines.append(f"{'' if full in given else '# '}{setting}  # {told}")
    return "\n".join(lines)

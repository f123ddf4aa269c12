"""The command `fedzo list`."""

import inspect
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedzo.catalog import AGGREGATOR_LINES, ATTACKER_LINES, LIE_LINES, METHOD_LINES, MIXER_LINES
from fedzo.errors import ConfigError
from fedzo.user_code import is_reference, load_kept
from scenarios.cli.described import Section, sections_of, stored
from scenarios.cli.options import guard
from scenarios.cli.settings_help import print_settings
from scenarios.runs.names import ENGINES, SCENARIOS, STRATEGIES, require_names


def list_command(
    scenario: Annotated[
        str | None,
        typer.Argument(
            help="a scenario, a method of `fedzo finetune`, or what you have written: file.py:Name"
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="whose settings to show with SCENARIO", show_default="fedzo"),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="the same, of an engine", show_default="inprocess")
    ] = None,
) -> None:
    """Show scenarios, strategies, engines, aggregators and attacks.

    With SCENARIO, show every setting and its default; with file.py:Name, those of a strategy or an
    attacker of your own; with a method of `fedzo finetune`, its settings.
    """
    if scenario is not None and scenario in METHOD_LINES:
        guard(lambda: _show_method(Console(), scenario, strategy=strategy, engine=engine))
        return
    if scenario is not None and is_reference(scenario):
        guard(lambda: _show_own(Console(), scenario, strategy=strategy, engine=engine))
        return
    if scenario is not None:
        chosen = strategy or "fedzo", engine or "inprocess"
        print_settings(Console(), guard(lambda: settings_of(scenario, *chosen)))
        return
    guard(lambda: _require_alone(strategy=strategy, engine=engine))
    for title, lines in catalogue().items():
        table = Table("name", "what it is", title=title, title_justify="left")
        for line in lines:
            table.add_row(*line)
        Console().print(table)


def catalogue() -> dict[str, list[tuple[str, str]]]:
    """Return every name that can be typed, with a line about it, by kind."""
    return {
        "scenarios": [(name, entry.line) for name, entry in SCENARIOS.items()],
        "strategies": [(name, entry.line) for name, entry in STRATEGIES.items()],
        "engines": [(name, line) for name, (_, line) in ENGINES.items()],
        "aggregators (strategy.aggregator)": [*AGGREGATOR_LINES.items()],
        "before them (bucketing | median)": [*MIXER_LINES.items()],
        "attackers (fedzo attack --attacker)": [*ATTACKER_LINES.items()],
        "attacks (byzantine.attack)": [*LIE_LINES.items()],
        "methods (fedzo finetune --method)": [*METHOD_LINES.items()],
    }


def _show_method(console: Console, name: str, **options: str | None) -> None:
    """Print the settings of a method of `fedzo finetune`."""
    _require_none(name, options)
    from scenarios.cli.describe import method_section  # it needs torch

    print_settings(console, [method_section(name)])
    if name in STRATEGIES:
        console.print(f"{name} is a strategy too: fedzo list custom --strategy {name}")


def _require_none(shown: str, options: Mapping[str, str | None]) -> None:
    """Raise ConfigError for options that only a scenario has a use for."""
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name} {value} has no effect with {shown}; leave it out")


def _show_own(console: Console, reference: str, **options: str | None) -> None:
    """Print what something of the user's is, and its settings where it has some."""
    _require_none(reference, options)
    found = load_kept(reference, what="SCENARIO")
    if hasattr(found, "round") and isinstance(found, type):
        sections = settings_of("quadratic", reference, "inprocess")
        shown = [each for each in sections if each.name in ("strategy", "client")]
        print_settings(console, shown)
    elif hasattr(found, "search"):
        from scenarios.cli.describe import own_attacker  # it needs torch

        print_settings(console, [own_attacker(reference)])
    else:
        told = f" = {found!r:.200}"
        if callable(found):
            told = f"{inspect.signature(found)}\n{inspect.getdoc(found) or ''}"
        console.print(f"{reference}{told}", highlight=False, markup=False)


def settings_of(scenario: str, strategy: str, engine: str) -> list[Section]:
    """Return what is stored of the settings, or what the code says of names that are not."""
    require_names(scenario, strategy, engine)
    words = stored()
    if not words.know(scenario, strategy, engine):
        from scenarios.cli.describe import described, with_own  # they need torch

        words = with_own(words, strategy) if is_reference(strategy) else described()
    return sections_of(words, scenario, strategy, engine)


def _require_alone(**options: str | None) -> None:
    """Raise ConfigError for options that need a scenario."""
    for name, value in options.items():
        if value is not None:
            raise ConfigError(
                f"--{name} {value} has no effect without SCENARIO; leave it out, or name one of"
                f" {', '.join(SCENARIOS)}"
            )

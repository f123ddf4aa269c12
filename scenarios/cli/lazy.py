"""Commands that are imported when they are used: help on all of them needs one line of each."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any, get_args

import click
import typer
from typer.core import TyperArgument, TyperGroup
from typer.models import ArgumentInfo

COMMANDS = {
    "list": "Show scenarios, strategies, engines, aggregators and attacks.",
    "run": "Run one federation.",
    "compare": "Run several strategies on the same problems and seeds.",
    "sweep": "Try settings, and report the best of them on seeds on which nothing was tuned.",
    "deploy": "Try a real deployment: a SuperLink and SuperNodes on 127.0.0.1, stopped at the end.",
    "audit": "Attack a private strategy on two neighboring data sets: a lower bound on its"
    " epsilon.",
    "check": "Ask your objective a few times before a run: what it is, its noise, and whether mu is"
    " seen.",
    "attack": "Attack one victim, image by image, and count every query.",
    "defend": "Defend a model that can only be queried: ZO-AE-DS (Zhang et al. 2022).",
    "finetune": "Train a network on a task by one method, and see its test accuracy by forward"
    " passes.",
    "replay": "Make the module of a run anew from its log alone, without asking for a single loss.",
    "new": "Write a strategy, an objective, an attacker or an aggregator of your own that runs at"
    " once.",
    "init": "Write a TOML file with every setting of an experiment, explained, for `fedzo run"
    " --config`.",
    "plot": "Draw the histories of runs; runs whose directories differ in seed-N alone become one"
    " line.",
    "table": "Compare methods over seeds in a table for a paper: means, errors, paired tests.",
    "retime": "Say how long finished runs would have taken on other devices, without running"
    " again.",
    "report": "Write one page of HTML about runs that needs no network: curves, tables, settings,"
    " failures.",
    "runs": "List the runs below a directory: what each is, how far it is, and the best value so"
    " far.",
    "watch": "Follow a run of another process, or of a deployment, until it ends.",
}
"""The first paragraph of each command's docstring, in the order of the help."""


_PATHS = ("--out", "--figure", "--log-file", "--config")
"""Options that would mean the current directory, where a variable of the shell is unset."""


class Later(click.Command):
    """Stands for the command in `scenarios.cli.NAME` until somebody uses it."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Import the command, and let it read the arguments."""
        assert self.name
        if not extra.get("resilient_parsing"):  # as where the shell completes
            _require_paths(args)
        resumed = "--resume" in args  # parsing empties args
        try:
            return imported(self.name).make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if not resumed or "extra argument" not in error.message:
                raise
            told = f"{error.message}; with --resume, name the directory alone or by --out"
            raise click.UsageError(told, error.ctx) from error


def _require_paths(args: list[str]) -> None:
    """Raise UsageError for a path that is empty, as an unset variable of the shell is."""
    for option, value in pairwise([*args, "-"]):
        name = option.removesuffix("=")
        if name in _PATHS and (option != name or value == ""):
            raise click.UsageError(f"{name} names nothing; is a variable of the shell unset?")


class LazyGroup(TyperGroup):
    """The group of all commands."""

    def __init__(self, **options: Any) -> None:
        commands = {name: Later(name, help=line) for name, line in COMMANDS.items()}
        super().__init__(**{**options, "commands": commands})


def imported(name: str) -> click.Command:
    """Return the command of this name."""
    command = getattr(import_module(f"scenarios.cli.{name}"), f"{name}_command")
    alone = typer.Typer(
        add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
    )
    flat = by_group(command)
    alone.command(name)(flat)
    made = typer.main.get_command(alone)
    _tell_arguments(made, inspect.signature(flat).parameters)
    return made


def _tell_arguments(command: click.Command, given: Mapping[str, inspect.Parameter]) -> None:
    """Give arguments their help back, which click 8.5 takes from those of typer 0.20."""
    for argument in command.params:
        told = get_args(given[argument.name].annotation) if argument.name in given else ()
        for info in told:
            if isinstance(info, ArgumentInfo) and isinstance(argument, TyperArgument):
                argument.help = info.help


def by_group(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the options of its groups, dataclasses, one by one."""
    given = inspect.signature(command).parameters
    groups: dict[str, Any] = {
        name: each.annotation for name, each in given.items() if is_dataclass(each.annotation)
    }

    @functools.wraps(command)
    def called(**values: Any) -> None:
        made = {
            name: kind(**{each.name: values.pop(each.name) for each in fields(kind)})
            for name, kind in groups.items()
        }
        command(**values, **made)

    flat = [
        one
        for name, each in given.items()
        for one in (_options(groups[name]) if name in groups else [each])
    ]
    called.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in flat}
    return called


def _options(group: Any) -> list[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(each.name, kind, default=each.default, annotation=each.type)
        for each in fields(group)
    ]

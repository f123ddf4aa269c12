"""Every setting of an experiment: its value, what is allowed, with what it is used."""

import inspect
from typing import Any, get_args

from rich.console import Console
from rich.table import Column, Table

from fedzo.config import allowed_names, setting_hints
from fedzo.parts import parts_of
from fedzo.records.terminal import shown
from scenarios.runs.experiment import SECTIONS, Experiment, config_classes, effects_of


def print_settings(console: Console, experiment: Experiment) -> None:
    """Print the settings of every section, with the docstring that explains them."""
    names = (experiment.scenario, experiment.strategy, experiment.engine)
    classes, conditions = config_classes(*names), effects_of(*names, {}).conditions
    heads = ("value", "allowed", "used with")
    for section in SECTIONS:
        folded = [Column(head, overflow="fold") for head in heads]
        table = Table(Column("setting", no_wrap=True), *folded, title=section, title_justify="left")
        hints = setting_hints(classes[section])
        for name, value in experiment.section(section).items():
            allowed = ", ".join(_allowed(hints[name])) or hints[name].__name__
            told = repr(value) if isinstance(value, str) else str(value)
            needs = "; ".join(c.words() for c in conditions.get(f"{section}.{name}", ()))
            needs = needs.replace(f"{section}.", "")
            table.add_row(*map(shown, (f"{section}.{name}", told, allowed, needs)))
        console.print(table)
        for cls in _explained(classes[section]):
            console.print(inspect.getdoc(cls) or "", highlight=False, markup=False)
        console.print()


def _allowed(hint: Any) -> list[str]:
    """Return the names, or the types of a union, that a setting may have."""
    return allowed_names(hint) or [str(option) for option in get_args(hint)]


def _explained(cls: type) -> list[type]:
    """Return the classes whose docstrings explain the settings: parts and parents first."""
    parts = [one for kind in parts_of(cls).values() for one in _explained(kind)]
    return [*parts, *reversed(cls.__mro__[:-1])]

"""Every setting of an experiment: its value, what is allowed, and what its config says."""

import inspect
from typing import get_args, get_type_hints

from rich.console import Console
from rich.table import Table

from scenarios.experiment import SECTIONS, Experiment, config_classes
from scenarios.terminal import shown


def print_settings(console: Console, experiment: Experiment) -> None:
    """Print the settings of every section, with the docstring that explains them."""
    classes = config_classes(experiment.scenario, experiment.strategy, experiment.engine)
    for section in SECTIONS:
        table = Table("setting", "value", "allowed", title=section, title_justify="left")
        hints = get_type_hints(classes[section])
        for name, value in experiment.section(section).items():
            allowed = ", ".join(map(str, get_args(hints[name]))) or hints[name].__name__
            told = repr(value) if isinstance(value, str) else str(value)
            table.add_row(shown(f"{section}.{name}"), shown(told), shown(allowed))
        console.print(table)
        for cls in reversed(classes[section].__mro__[:-1]):
            console.print(inspect.getdoc(cls) or "", highlight=False, markup=False)
        console.print()

"""Every setting of an experiment as a table: name, default, and what its config says about it."""

import inspect

from rich.console import Console
from rich.table import Table

from scenarios.experiment import SECTIONS, Experiment, config_classes


def print_settings(console: Console, experiment: Experiment) -> None:
    """Print the settings of every section, with the docstring that explains them."""
    classes = config_classes(experiment.scenario, experiment.strategy, experiment.engine)
    for section in SECTIONS:
        table = Table("setting", "default", title=section, title_justify="left")
        for name, value in experiment.section(section).items():
            table.add_row(
                f"{section}.{name}", repr(value) if isinstance(value, str) else str(value)
            )
        console.print(table)
        console.print(inspect.getdoc(classes[section]) or "", highlight=False, markup=False)
        console.print()

"""The figure of a sweep: every setting against the measure, one dot a trial."""

import math
from pathlib import Path

from matplotlib.figure import Figure

from fedzo.records.figure_text import figure_text
from fedzo.records.plots import save_figure
from scenarios.runs.spaces import Range
from scenarios.runs.sweep import Tuned


def draw_sensitivity(path: Path, tuned: Tuned) -> None:
    """Draw a panel for each setting; the best trial is red, those that did not end are left out."""
    plan, columns = tuned.plan, len(tuned.plan.spaces)
    figure = Figure(figsize=(max(4.5, 3.4 * columns), 3.4), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False, sharey=True)[0]
    ended = [trial for trial in tuned.trials if math.isfinite(trial.score)]
    means = [sum(trial.values) / len(trial.values) for trial in ended]
    for axes, (name, space) in zip(panels, plan.spaces.items(), strict=True):
        chosen = [trial.settings[name] for trial in ended]
        if isinstance(space, Range):
            positions = [float(value) for value in chosen]
            axes.set_xscale("log" if space.kind == "log" else "linear")
        else:
            positions = [float(list(space.values).index(value)) for value in chosen]
            axes.set_xticks(range(len(space.values)), [figure_text(str(v)) for v in space.values])
        colors = ["tab:red" if trial is tuned.best else "tab:blue" for trial in ended]
        axes.scatter(positions, means, c=colors, s=28)
        axes.set_xlabel(figure_text(name))
        axes.grid(alpha=0.3)
    measure = plan.decided_by.name.replace("_", " ")
    panels[0].set_ylabel(f"{measure}, mean of {len(plan.tuned_on)} seeds")
    save_figure(figure, path)

"""The picture of a run: what was seen, by example-forwards."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fedzo.records.plots import save_figure


def draw_curve(
    forwards: Sequence[int], told: Mapping[str, Sequence[float]], name: str, path: Path
) -> None:
    """Write a panel for each quantity; raises OSError where the system does not let us."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    figure.suptitle(name, fontsize="medium")
    panels = figure.subplots(1, len(told), squeeze=False)[0]
    for axes, (quantity, values) in zip(panels, told.items(), strict=True):
        axes.plot(forwards, values, marker="o")
        axes.set_xlabel("example-forwards")
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
    save_figure(figure, path)

"""A table of numbers as a picture: rows, columns, and a panel for every setting."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedzo.records.figure_text import figure_text
from fedzo.records.plots import save_figure

Table = NDArray[np.float64]


def draw_heatmap(
    path: Path,
    panels: Mapping[str, Table],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    higher_is_better: bool,
) -> None:
    """Write a figure with a panel [rows, columns] for each title; good is bright, NaN is grey."""
    width, height = 1.2 + 0.75 * len(columns), 1.2 + 0.42 * len(rows)
    figure = Figure(figsize=(width * len(panels) + 2, height + 1), layout="constrained")
    everything = np.concatenate([panel.ravel() for panel in panels.values()])
    known = everything[np.isfinite(everything)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    colors = "viridis" if higher_is_better else "viridis_r"
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (name, panel) in zip(all_axes, panels.items(), strict=True):
        image = axes.imshow(panel, vmin=low, vmax=high, cmap=colors, aspect="auto")
        axes.set_facecolor("lightgrey")
        axes.set_title(figure_text(name), fontsize="small")
        below, left = ([figure_text(name) for name in names] for names in (columns, rows))
        axes.set_xticks(range(len(columns)), below, rotation=60, ha="right", fontsize="x-small")
        axes.set_yticks(range(len(rows)), left, fontsize="x-small")
        axes.axvline(len(columns) - 1.5, color="white", lw=3)
        for (row, column), value in np.ndenumerate(panel):
            if np.isfinite(value):
                share = (value - low) / ((high - low) or 1)
                bright = share > 0.6 if higher_is_better else share < 0.4
                color = "black" if bright else "white"
                text = f"{value:.3g}"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=6)
    figure.colorbar(image, ax=list(all_axes), shrink=0.8)
    figure.suptitle(figure_text(title), fontsize="small")
    save_figure(figure, path)

"""The picture of a run: test accuracy and loss by example-forwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from fedzo.records.plots import save_figure

if TYPE_CHECKING:
    from scenarios.finetune.training import Look


def draw_curve(looks: "Sequence[Look]", name: str, path: Path) -> None:
    """Write the picture of a run; raises OSError where the system does not let us."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    figure.suptitle(name, fontsize="medium")
    forwards = [look.forwards for look in looks]
    told = {
        "test accuracy": [look.test_accuracy for look in looks],
        "test loss": [look.test_loss for look in looks],
    }
    for axes, (quantity, values) in zip(figure.subplots(1, 2), told.items(), strict=True):
        axes.plot(forwards, values, marker="o")
        axes.set_xlabel("example-forwards")
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
    save_figure(figure, path)

"""The picture of an attack: images before, what was added, images after, and the way there."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fedzo.records.curves import LABELS, run_curve
from fedzo.records.figure_text import figure_text
from fedzo.records.history import RoundRecord
from fedzo.records.plots import save_figure
from scenarios.data.image_folder import LabelledImages

_SHOWN = 8


def draw_attack(
    path: Path,
    images: LabelledImages,
    perturbed: Sequence[Float[Tensor, "c s s"]],
    margins: Sequence[float],
    history: Sequence[RoundRecord],
) -> None:
    """Draw up to eight images in columns, and every image's margin against queries."""
    columns = min(_SHOWN, len(perturbed))
    figure = Figure(figsize=(max(6.5, 1.35 * columns), 7.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(3, 2.2), squeeze=False)[:, 0]
    rows = top.subplots(3, columns, squeeze=False)
    for column in range(columns):
        image, label = images.images[column], int(images.labels[column])
        name = images.classes[label] if images.classes else str(label)
        _show(rows[0][column], image, figure_text(f"a {name}"))
        _show(rows[1][column], perturbed[column] - image, "added", signed=True)
        color = "tab:red" if margins[column] < 0 else "black"
        _show(rows[2][column], perturbed[column], f"margin {margins[column]:+.2f}", color=color)
    _draw_margins(bottom.subplots(), history)
    save_figure(figure, path)


def _show(
    axes: Axes,
    image: Float[Tensor, "c s s"],
    title: str,
    *,
    signed: bool = False,
    color: str = "black",
) -> None:
    low = -float(image.abs().max()) if signed else 0.0
    high = -low if signed else 1.0
    picture = image.mean(dim=0) if signed or len(image) == 1 else image.permute(1, 2, 0)
    axes.imshow(
        picture.numpy(), cmap="RdBu_r" if signed else "gray", vmin=low, vmax=max(high, 1e-9)
    )
    axes.set_title(title, fontsize="small", color=color)
    axes.set_axis_off()


def _draw_margins(axes: Axes, history: Sequence[RoundRecord]) -> None:
    judged = {record.problem for record in history if record.value is not None}
    for problem in sorted(judged):
        records = [record for record in history if record.problem == problem]
        curve = run_curve(records, "value", "queries")
        axes.plot(
            curve.positions, curve.values, drawstyle="steps-post", label=f"image {problem + 1}"
        )
    axes.axhline(0, color="black", lw=0.8, ls="--")
    axes.set_xlabel(LABELS["queries"])
    axes.set_ylabel("margin averaged over clients")
    axes.set_title("below 0 the averaged victims are fooled", fontsize="small")
    axes.grid(alpha=0.3)
    if 1 < len(axes.lines) <= _SHOWN + 1:
        axes.legend(fontsize="x-small")

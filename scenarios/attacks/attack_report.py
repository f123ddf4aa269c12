"""What an attack on one victim leaves behind: a table, a grid of pictures, JSON, the images.

distance.png is of attacks that went outside the ball, as those by labels do: the size of the
nearest success by queries, a line an image, and the median of all.
"""

import math
from pathlib import Path
from statistics import median

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from safetensors.torch import save
from torch import Tensor

from fedzo.attacks.subject import Found, perturbed
from fedzo.records.figure_text import figure_text
from fedzo.records.plots import save_figure
from fedzo.records.storage import write_whole
from fedzo.records.strict_json import strict_json
from fedzo.records.terminal import say, shown, title
from scenarios.attacks.attack_result import Report, amplified

_SHOWN = 10


def write_report(folder: Path, victim: str, report: Report) -> None:
    """Write report.json, figure.png, images.safetensors (images, perturbations, labels).

    And distance.png, where an attack went outside the ball.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"victim": victim, **report.to_json()}
    write_whole(folder / "report.json", strict_json(content, indent=1) + "\n")
    draw_report(folder / "figure.png", report)
    if report.came_from_outside:
        draw_approach(folder / "distance.png", report)
    deltas = torch.stack([found.delta for found in report.found])
    tensors = {"images": report.images, "labels": report.labels, "perturbations": deltas}
    patches = [found.patch for found in report.found if found.patch is not None]
    if patches:
        tensors["patches"] = torch.stack(patches)
    whole = {name: t.contiguous() for name, t in tensors.items()}
    write_whole(folder / "images.safetensors", save(whole))


def print_report(console: Console, victim: str, report: Report) -> None:
    """Print what an attack gave, the first images one by one."""
    summary = report.summary()
    settings = report.plan.settings
    name = title(
        f"{report.attacker} against {victim} ({report.tells}), {settings.norm} {settings.radius:g}"
    )
    table = Table(title=name, show_header=False, title_justify="left")
    hit = sum(found.success for found in report.found)
    table.add_row("success", f"{summary['success_rate']:.2f} ({hit} of {len(report.found)})")
    if settings.universal:
        wanted = f"{settings.universal_rate:g} of them are a success"
        table.add_row("images fooled", f"{report.fooled:.2f} of {len(report.images)}, {wanted}")
    if summary["misclassified"]:
        table.add_row("misclassified, not attacked", f"{summary['misclassified']}")
    table.add_row("queries, mean (failure = budget)", f"{summary['mean_queries']:,.1f}")
    table.add_row("queries, median", f"{summary['median_queries']:,.1f}")
    if report.placed is not None:
        elsewhere = f"works at {settings.placements} other places"
        table.add_row(elsewhere, f"{report.placed:.2f} of them, on average")
    nearest = report.median_nearest
    if nearest is not None and report.came_from_outside:
        table.add_row("nearest, median", f"{nearest:.4g}")
    table.add_row(
        "queries in all, screening",
        f"{summary['queries']:,}, {summary['screening_queries']:,}",
    )
    table.add_row("answered by the victim", f"{report.victim_queries:,}")
    if summary["refused"] or report.replayed:
        table.add_row("refused, from the journal", f"{summary['refused']:,}, {report.replayed:,}")
    if summary["confirm"] > 1:
        noisy = {True: "noisy", False: "exact", None: "not seen to be noisy"}[summary["noisy"]]
        table.add_row("answers to a success, victim", f"{summary['confirm']}, {noisy}")
    if report.query_cost:
        table.add_row("cost", f"{summary['cost']:,.2f}")
    table.add_row("seconds", f"{report.seconds:.2f}")
    console.print(table)
    each = Table("image", "label", "answer", "queries", "linf", "l2", "success")
    for found in report.found[:_SHOWN]:
        each.add_row(
            str(found.index),
            shown(report.said(int(report.labels[found.index]))),
            shown(report.said(found.label)),
            f"{found.queries:,}",
            f"{float(found.delta.abs().max()):.3f}",
            f"{float(found.delta.norm()):.2f}",
            "yes" if found.success else "no",
        )
    console.print(each)
    more = len(report.found) - _SHOWN
    if more > 0:
        say(console, f"and {more} images more, in report.json of --out")


def draw_report(path: Path, report: Report) -> None:
    """Draw up to ten images: as they were, what was added (amplified), as they are answered."""
    pictures = _pictures(report)[:_SHOWN]
    columns = len(pictures)
    figure = Figure(figsize=(max(6.5, 1.3 * columns), 5.4), layout="constrained")
    axes = figure.subplots(3, columns, squeeze=False)
    for column, (image, found, label) in enumerate(pictures):
        delta = found.delta.reshape(image.shape)
        after = perturbed(image.unsqueeze(0), found.delta.unsqueeze(0))[0]
        color = "tab:red" if found.success else "black"
        answer = report.said(found.label) if found.label >= 0 else "?"
        name = report.said(label)
        _show(axes[0][column], image, figure_text(name if report.classes else f"a {name}"))
        _show(
            axes[1][column],
            amplified(delta),
            f"{found.queries} quer{'y' if found.queries == 1 else 'ies'}",
        )
        _show(axes[2][column], after, figure_text(f"answered {answer}"), color=color)
    settings = report.plan.settings
    figure.suptitle(
        f"{report.attacker}, {settings.norm} {settings.radius:g}: original, perturbation"
        " (amplified), adversarial",
        fontsize="small",
    )
    save_figure(figure, path)


def draw_approach(path: Path, report: Report) -> None:
    """Draw how near each image's attack has come by queries, and their median."""
    settings = report.plan.settings
    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    axes = figure.subplots()
    budget = settings.query_budget
    queries = sorted({1, budget, *(at for found in report.found for at, _ in found.approach)})
    sizes = [[_reached(found, at) for at in queries] for found in report.found]
    for line in sizes:
        axes.step(queries, line, where="post", color="tab:blue", alpha=0.25, linewidth=0.8)
    middle = [median(column) for column in zip(*sizes, strict=True)]
    axes.step(queries, middle, where="post", color="tab:blue", linewidth=2, label="median")
    axes.axhline(settings.radius, color="black", linestyle="--", linewidth=0.8, label="the ball")
    axes.set(
        xscale="log", yscale="log", xlabel="queries", ylabel=f"{settings.norm}, nearest success"
    )
    axes.set_title(figure_text(f"{report.attacker}: nearest success"), fontsize="small")
    axes.legend(fontsize="small")
    save_figure(figure, path)


def _reached(found: Found, queries: int) -> float:
    """Return the size of the nearest success after so many queries, infinite if none."""
    return min((size for at, size in found.approach if at <= queries), default=math.inf)


def _pictures(report: Report) -> list[tuple[Float[Tensor, "c h w"], Found, int]]:
    """Return each image with what was found for it, or all with the universal perturbation."""
    labels = report.labels.tolist()
    if report.plan.settings.universal:
        return [(image, report.found[0], labels[i]) for i, image in enumerate(report.images)]
    return [(report.images[f.index], f, labels[f.index]) for f in report.found]


def _show(axes: Axes, image: Float[Tensor, "c h w"], above: str, *, color: str = "black") -> None:
    picture = image.permute(1, 2, 0) if len(image) == 3 else image.mean(dim=0)
    axes.imshow(picture.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_title(above, fontsize="small", color=color)
    axes.set_axis_off()

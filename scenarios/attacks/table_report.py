"""What a table of attacks leaves behind: itself, a curve of robust accuracy, a folder an attack."""

import re
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.console import Console
from rich.table import Table

from fedzo.records.figure_text import figure_text
from fedzo.records.plots import save_figure
from fedzo.records.storage import write_whole
from fedzo.records.strict_json import strict_json
from fedzo.records.terminal import shown, title
from scenarios.attacks.attack_report import print_report, write_report
from scenarios.attacks.attack_result import Report
from scenarios.attacks.attack_table import AttackTable
from scenarios.attacks.picture_files import write_pictures

_LINES = ("-", "--", ":", "-.")
_MARKS = ("o", "s", "^", "D", "v")


def write_result(
    folder: Path, victim: str, found: Report | AttackTable, *, pictures: bool = False
) -> None:
    """Write what a single attack, or a table of them, leaves behind; `pictures`: PNG files too.

    What an earlier attack of other settings has left there under the same names is taken away.
    """
    if isinstance(found, Report):
        write_report(folder, victim, found)
        old = ["table.json", *([] if found.came_from_outside else ["distance.png"])]
    else:
        write_table(folder, victim, found)
        old = ["report.json", "distance.png", "images.safetensors"]
    for name in old:
        (folder / name).unlink(missing_ok=True)
    if not pictures:
        return
    if isinstance(found, Report):
        write_pictures(folder, found)
        return
    for report in found.reports:
        write_pictures(folder / cell_name(report), report)


def print_result(console: Console, victim: str, found: Report | AttackTable) -> None:
    """Print what a single attack, or a table of them, has given."""
    if isinstance(found, Report):
        print_report(console, victim, found)
    else:
        print_table(console, victim, found)


def write_table(folder: Path, victim: str, table: AttackTable) -> None:
    """Write table.json, figure.png, and of every attack what a single one leaves behind."""
    folder.mkdir(parents=True, exist_ok=True)
    for report in table.reports:
        write_report(folder / cell_name(report), victim, report)
    content = {"victim": victim, **table.to_json()}
    write_whole(folder / "table.json", strict_json(content, indent=1) + "\n")
    draw_table(folder / "figure.png", victim, table)


def cell_name(report: Report) -> str:
    """Return the name of an attack's folder, such as square-0.1."""
    name = re.sub(r"[^\w.]+", "_", report.attacker)
    return f"{name}-{report.plan.settings.radius:g}"


def print_table(console: Console, victim: str, table: AttackTable) -> None:
    """Print a line for every attacker and radius, and what all of them have cost."""
    told = table.summary()
    placed = any(cell["placed"] is not None for cell in told["cells"])
    lines = Table(
        "attacker", "radius", "success", *(["elsewhere"] if placed else []), "robust accuracy",
        "queries, mean", "median",
        title=title(f"attacks on {victim} ({told['tells']}), {told['norm']}"),
        title_justify="left",
    )  # fmt: skip
    for report, cell in zip(table.reports, told["cells"], strict=True):
        lines.add_row(
            shown(report.attacker),
            f"{cell['radius']:g}",
            f"{cell['success_rate']:.2f}",
            *([_share(cell["placed"])] if placed else []),
            f"{cell['robust_accuracy']:.2f}",
            f"{cell['mean_queries']:,.1f}",
            f"{cell['median_queries']:,.1f}",
        )
    console.print(lines)
    rest = Table(show_header=False)
    rest.add_row("images attacked, misclassified", f"{told['images']}, {told['misclassified']}")
    if table.accuracy is not None:
        rest.add_row("accuracy of the victim on these", f"{table.accuracy:.2f}")
    rest.add_row(
        "queries in all (at most), screening",
        f"{told['queries']:,} ({told['most_queries']:,}), {told['screening_queries']:,}",
    )
    rest.add_row("answered by the victim", f"{told['victim_queries']:,}")
    if told["replayed"]:
        rest.add_row("asked before, counted again", f"{told['replayed']:,}")
    if told["cost"]:
        rest.add_row("cost", f"{told['cost']:,.2f}")
    rest.add_row("seconds", f"{told['wall_s']:.2f}")
    console.print(rest)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"


def draw_table(path: Path, victim: str, table: AttackTable) -> None:
    """Draw robust accuracy against the radius, a line an attacker, told apart without color."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    styles = zip(cycle(_LINES), cycle(_MARKS))
    for attacker, (line, mark) in zip(table.attackers, styles, strict=False):
        points = [
            (one.plan.settings.radius, table.robust_accuracy(one)) for one in table.of(attacker)
        ]
        if table.accuracy is not None:
            points.insert(0, (0.0, table.accuracy))
        radii, shares = zip(*points, strict=True)
        axes.plot(radii, shares, line, marker=mark, label=figure_text(attacker))
    first = table.reports[0]
    axes.set_xlabel(f"radius ({first.plan.settings.norm})")
    axes.set_ylabel(f"robust accuracy, {first.plan.settings.query_budget:,} queries an image")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(
        figure_text(
            f"{victim}: {len(first.images)} images attacked,"
            f" {len(first.screened.misclassified)} misclassified"
        ),
        fontsize="medium",
    )
    save_figure(figure, path)

"""Tables and figure of docs/results/time.md, from what virtual_time.py has written.

python benchmarks/virtual_time_figure.py QUADRATIC.json NETWORK.json --figure FILE.png
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

FLEETS = {
    "silo": "data centers", "mobile": "phones, 2024", "fedscale": "FedScale's phones",
    "nb-iot": "NB-IoT sensors",
}  # fmt: skip
GREY = ("#1b1b1b", "#666666", "#a5a5a5", "#d9d9d9")


def number(seconds: float) -> str:
    return (
        "never"
        if math.isinf(seconds)
        else f"{seconds:.3g}"
        if seconds < 1000
        else f"{seconds:,.0f}"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Return medians of seconds over seeds; the least of a column is bold."""
    places = list(rows[0]["seconds"])
    medians = {r["method"]: [statistics.median(r["seconds"][p]) for p in places] for r in rows}
    least = [min(found[i] for found in medians.values()) for i in range(len(places))]
    shown = [p.removesuffix(" 0") if p.endswith(" 0") else f"{p} s" for p in places]
    lines = [f"| | {' | '.join(shown)} |", f"|---{'|---' * len(places)}|"]
    for method, found in medians.items():
        cells = [
            f"**{number(v)}**" if v == low else number(v)
            for v, low in zip(found, least, strict=True)
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def costs(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["counts"][0])
    lines = [f"| | settings chosen | {' | '.join(names)} |", f"|---|---{'|---' * len(names)}|"]
    for row in rows:
        told = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in row["best"].items())
        found = [f"{statistics.median(c[n] for c in row['counts']):,.0f}" for n in names]
        lines.append(f"| {row['method']} | {told} | {' | '.join(found)} |")
    return "\n".join(lines)


def bars(axes: Axes, rows: list[dict[str, Any]], query: str, title: str) -> None:
    """Draw a bar a method and fleet: the median, and a line from the first to the last seed."""
    width = 0.8 / len(FLEETS)
    for number_, (fleet, name) in enumerate(FLEETS.items()):
        for place, row in enumerate(reversed(rows)):
            found = [s for s in row["seconds"][f"{fleet} {query}"] if math.isfinite(s)]
            at = place + 0.4 - width * (number_ + 0.5)
            label = name if place == 0 else None
            if len(found) > 2:
                axes.barh(at, statistics.median(found), width, color=GREY[number_], label=label)
                axes.plot([min(found), max(found)], [at, at], color="black", linewidth=0.8)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 1000 * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(rows)), [row["method"] for row in reversed(rows)])
    axes.set_title(title, fontsize="medium", loc="left")
    axes.set_xlabel("seconds until the target (less is better)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("quadratic", type=Path)
    parser.add_argument("network", type=Path)
    parser.add_argument("--figure", type=Path, required=True)
    chosen = parser.parse_args()
    quadratic, network = (
        json.loads(path.read_text()) for path in (chosen.quadratic, chosen.network)
    )
    for rows in (quadratic, network):
        print(table(rows), costs(rows), sep="\n\n", end="\n\n")
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    [[first, second], [third, fourth]] = figure.subplots(2, 2)
    bars(first, quadratic, "0.001", "Black box, a query takes 1 ms: the wire decides")
    bars(second, quadratic, "0.05", "A query takes 50 ms")
    bars(third, quadratic, "2", "A query takes 2 s: queries and waiting decide")
    bars(fourth, network, "0", "A network of 25,450 weights on digits")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(chosen.figure, dpi=110)


if __name__ == "__main__":
    main()

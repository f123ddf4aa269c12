"""What benchmarks/finetune_methods.py has found, as a Markdown table and a figure.

    python benchmarks/finetune_table.py FILE.json [--figure OUT.png] [--frozen .583,.620,.582]

A row a method, the best mean first: rate, test accuracy in the middle and at the end for each seed,
and CPU seconds of a run. Rates at the edge of what was tried are marked with *. The figure has the
mean curves by example-forwards, and the mean of frozen features as a line.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from finetune_methods import SHOWN, TUNING
from matplotlib.figure import Figure

from fedzo.records.plots import save_figure


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--frozen", default="")
    chosen = parser.parse_args()
    rows = json.loads(chosen.file.read_text())
    methods = list(dict.fromkeys(row["method"] for row in rows))
    shown = {method: runs for method in methods if len(runs := _shown(rows, method)) == len(SHOWN)}
    ranked = sorted(shown, key=lambda method: -_mean(shown[method]))
    print("| method | lr | half-way | at the end | mean | CPU s |\n|---|---|---|---|---|---|")
    for method in ranked:
        runs = shown[method]
        tried = [row["lr"] for row in rows if row["method"] == method and row["seed"] == TUNING]
        lr = runs[0]["lr"]
        mark = "*" if lr in (min(tried), max(tried)) else ""
        half, end = (_told(runs, place) for place in (len(runs[0]["accuracy"]) // 2, -1))
        seconds = statistics.mean(row["cpu_seconds"] for row in runs)
        print(f"| `{method}` | {lr:g}{mark} | {half} | {end} | {_mean(runs):.3f} | {seconds:.0f} |")
    if chosen.figure:
        frozen = [float(value) for value in chosen.frozen.split(",") if value]
        _draw(chosen.figure, {method: shown[method] for method in ranked}, frozen)


def _shown(rows: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["method"] == method and row["seed"] in SHOWN]


def _mean(runs: list[dict[str, Any]]) -> float:
    return statistics.mean(row["accuracy"][-1] for row in runs)


def _told(runs: list[dict[str, Any]], place: int) -> str:
    return " / ".join(f"{row['accuracy'][place]:.3f}".lstrip("0") for row in runs)


def _draw(path: Path, shown: dict[str, list[dict[str, Any]]], frozen: list[float]) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for method, runs in shown.items():
        curves = [row["accuracy"] for row in runs]
        means = [statistics.mean(values) for values in zip(*curves, strict=True)]
        axes.plot(runs[0]["forwards"], means, marker="o", markersize=3, label=method)
    if frozen:
        mean = statistics.mean(frozen)
        axes.axhline(mean, linestyle="--", color="gray", label="frozen features")
    axes.set_xlabel("example-forwards (backward passes of first_order are not counted)")
    axes.set_ylabel(f"test accuracy, mean of {len(SHOWN)} seeds")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


if __name__ == "__main__":
    main()

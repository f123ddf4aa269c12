"""FedZO, and two better ways, against the same digits: who needs fewer queries to fool ten.

`make demo` runs it. Ten clients each have a classifier of MNIST digits that only answers scores.
All methods attack the same images, with pixels changed by at most 0.2, until the averaged
answer is wrong; one figure shows the digits, what became of them, and what it took.
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

from fedzo.records.plots import save_figure
from scenarios import make_experiment, simulate
from scenarios.runs.engines import build_scenario

METHODS = {
    "fedzo": "FedZO (Fang 2022)",
    "fzoos": "FZooS, improved",
    "thompson": "Thompson sampling",
}
IMAGES, BUDGET = 6, 20000


def attacked(strategy):
    """Return the run's result, and each image after its attack."""
    settings = {"scenario.num_images": IMAGES}
    experiment = make_experiment(
        "attack", strategy, settings=settings, num_rounds=1000, query_budget=BUDGET
    )
    scenario = build_scenario(experiment)
    result = simulate(experiment, scenario=scenario)
    return result, scenario.images, scenario.perturbed(result.solutions)


def draw(path, found, images):
    """Draw the digits in the first row, and a row for each method."""
    figure = Figure(figsize=(1.4 * IMAGES, 1.7 * (1 + len(found))), layout="constrained")
    rows = figure.subplots(1 + len(found), IMAGES)
    for axes, image, label in zip(rows[0], images.images, images.labels, strict=True):
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"a {int(label)}", fontsize="small")
    for row, (strategy, (result, after)) in zip(rows[1:], found.items(), strict=True):
        row[0].set_ylabel(METHODS[strategy], fontsize="small")
        for axes, image, record in zip(row, after, result.last_records, strict=True):
            axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            fooled = record.value < 0
            told = f"fooled: {record.queries:,}" if fooled else f"not in {record.queries:,}"
            axes.set_title(told, fontsize="small", color="tab:red" if fooled else "black")
    for axes in rows.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle("queries of ten clients together until their averaged answer is wrong")
    save_figure(figure, path)


def main(out):
    torch.set_num_threads(1)
    found, images = {}, None
    for strategy, name in METHODS.items():
        result, images, after = attacked(strategy)
        found[strategy] = result, after
        fooled = sum(record.value < 0 for record in result.last_records)
        print(f"{name:20} fooled {fooled} of {IMAGES} with {result.queries:8,} queries", flush=True)
    path = out / "demo.png"
    out.mkdir(parents=True, exist_ok=True)
    draw(path, found, images)
    base = found["fedzo"][0].queries
    for strategy in list(METHODS)[1:]:
        ratio = base / found[strategy][0].queries
        print(f"{METHODS[strategy]} took {ratio:.1f} times fewer queries than FedZO")
    print("FedZO has no prior of smooth images, the others have; client.lengthscale gives it one")
    print(f"one seed, six digits; tables with errors: docs/results/attacks.md\nfigure: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))

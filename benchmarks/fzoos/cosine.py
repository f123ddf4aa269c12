"""How well do clients' gradients point along grad F, local step by local step?

    python benchmarks/fzoos/cosine.py

The quadratic with C = 5, d = 300, five clients, ten local steps; cosine with the exact grad F,
mean over clients, rounds 2 to 8 and seeds 0 to 4, each method on its own trajectory. FZooS asks
5.4 (improved) and 6 (official) queries a client and step; finite differences of FedZO ask 30.
Writes
docs/results/fzoos/cosine.png and prints the numbers. The diagnostic is that of Shu et al., arXiv
2308.04077; the settings are ours.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fedzo.optimizers import Adam
from fedzo.records.plots import save_figure
from fedzo.surrogates.descent import virtual_steps
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

OUT = Path(__file__).resolve().parents[2] / "docs" / "results" / "fzoos" / "cosine.png"
STEPS, ROUNDS, SEEDS, DIM = 10, 8, range(5), 300
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "FZooS improved, 5.4 queries a step": ("fzoos", {}),
    "FZooS official, 6 queries a step": (
        "fzoos",
        {"strategy.variant": "official", "client.num_features": 2000},
    ),
    "FZooS paper, 6 queries a step": (
        "fzoos",
        {"strategy.variant": "paper", "client.num_features": 2000},
    ),
    "finite differences, 30 queries a step": ("fedzo", {"client.num_directions": 29}),
}


def true_gradient(x: Tensor) -> Tensor:
    """Return grad F of the quadratic scenario."""
    z = 20 * x - 10
    return 20 * (2 * z + 1) / (10 * DIM)


def cosine(gradient: Tensor, x: Tensor) -> float:
    """Return the mean cosine between rows of gradients and grad F at rows of x."""
    return float(torch.cosine_similarity(gradient, true_gradient(x), dim=-1).mean())


class Recorder:
    """Collects cosines by the step within a round; every round begins at step 0."""

    def __init__(self) -> None:
        self.by_step: dict[int, list[float]] = defaultdict(list)
        self.round = 0

    def optimizer(self, *_: Any, **__: Any) -> Any:
        recorder = self
        self.round += 1

        class Watched(Adam):
            def step(self, state: Any, x: Tensor, gradient: Tensor, lr: float) -> Any:
                if recorder.round > 1:
                    recorder.by_step[state.count].append(cosine(gradient, x))
                return super().step(state, x, gradient, lr)

        return Watched()

    def walk(self, gradient_at: Any, x: Tensor, eta: float, **settings: Any) -> Tensor:
        self.round += 1
        every = virtual_steps(gradient_at, x, eta, **{**settings, "stops": range(1, STEPS + 1)})
        path = torch.cat([x.unsqueeze(0), every])[:STEPS]
        if self.round > 1:
            for step, (point, gradient) in enumerate(zip(path, gradient_at(path), strict=True)):
                self.by_step[step].append(cosine(gradient, point))
        return virtual_steps(gradient_at, x, eta, **settings)


def curve(strategy: str, settings: dict[str, Any]) -> np.ndarray:
    """Return the mean cosine at each local step."""
    means = []
    for seed in SEEDS:
        recorder = Recorder()
        patches: list[tuple[str, Callable[..., Any]]] = [
            ("clients.surrogate.surrogate.make_optimizer", recorder.optimizer),
            ("clients.averaging.zeroth_order.make_optimizer", recorder.optimizer),
            ("strategies.surrogate.fzoos_improved.virtual_steps", recorder.walk),
        ]
        experiment = make_experiment(
            "quadratic",
            strategy,
            num_rounds=ROUNDS,
            seed=seed,
            settings={"scenario.heterogeneity": 5.0, **settings},
        )
        with patch(*patches[0]), patch(*patches[1]), patch(*patches[2]):
            simulate(experiment)
        means.append([np.mean(recorder.by_step[step]) for step in range(STEPS)])
    return np.array(means)


if __name__ == "__main__":
    torch.set_num_threads(1)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, (strategy, settings) in METHODS.items():
        values = curve(strategy, settings)
        mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / len(values) ** 0.5
        axes.plot(range(1, STEPS + 1), mean, label=name)
        axes.fill_between(range(1, STEPS + 1), mean - error, mean + error, alpha=0.2)
        print(name, " ".join(f"{value:.3f}" for value in mean), f"(se up to {error.max():.3f})")
    axes.set_xlabel("local step")
    axes.set_ylabel("cosine with grad F")
    axes.legend()
    figure.suptitle("quadratic, C = 5, rounds 2 to 8, seeds 0 to 4", fontsize="medium")
    save_figure(figure, OUT)

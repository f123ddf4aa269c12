"""The cost of a FZooS round, and how it grows.

    python benchmarks/fzoos/speed.py

Reference: one fit of scikit-learn's GaussianProcessRegressor (Matern-5/2, 20 restarts, 150 points,
d = 300), which the published code of FZooS makes in every local step of every client: N T = 50
fits a round. Rounds are timed within whole runs, medians over rounds 3 and later. Exits 1 when a
round is not 20 times faster than the 50 fits, or its cost grows faster than linearly.
"""

import sys
import time
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from fedzo.randomness import stream
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

CLIENTS, STEPS, DIM = 5, 10, 300
OFFICIAL = {"strategy.variant": "official"}


def reference_fit() -> float:
    """Return the seconds of one fit on 150 points of a trajectory of the quadratic."""
    generator = stream(0, "benchmark", "gp")
    points = 0.5 + np.cumsum(generator.uniform(-0.01, 0.01, (150, DIM)), axis=0)
    values = ((20 * points - 10) ** 2).mean(axis=1)
    values = (values - values.min()) / np.ptp(values)
    model = GaussianProcessRegressor(
        Matern(nu=2.5), alpha=1e-6, n_restarts_optimizer=20, random_state=0
    )
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(points, values)
    return time.perf_counter() - begin


def round_seconds(
    settings: dict[str, Any], *, clients: int = CLIENTS, dim: int = DIM, rounds: int = 10
) -> np.ndarray:
    """Return the seconds of each round."""
    experiment = make_experiment(
        "quadratic",
        "fzoos",
        num_clients=clients,
        num_rounds=rounds,
        settings={"scenario.dim": dim, **settings},
    )
    return np.diff([record.wall_s for record in simulate(experiment).records])


def typical(settings: dict[str, Any], **size: int) -> float:
    """Return the median seconds of a round from the third one on."""
    return float(np.median(round_seconds(settings, **size)[2:]))


def main() -> int:
    """Print the table and return the exit status."""
    torch.set_num_threads(1)
    fit = float(np.median([reference_fit() for _ in range(3)]))
    budget = fit * CLIENTS * STEPS
    print(f"reference: {fit:.2f} s a fit, {budget:.0f} s a round of {CLIENTS * STEPS} fits")
    failed = False
    for name, settings in (("improved", {}), ("official", OFFICIAL)):
        seconds = typical(settings)
        failed |= budget / seconds < 20
        print(f"{name}: {seconds:.3f} s a round, {budget / seconds:.0f} times faster (limit 20)")
    grown = {"strategy.num_directions": 20, "strategy.design": "shared"}
    for name, settings in (
        ("improved", grown),
        ("official", {**OFFICIAL, "client.num_features": 2000}),
    ):
        base = typical(settings, clients=5, dim=300)
        for what, size in (("40 clients", {"clients": 40}), ("d = 2400", {"dim": 2400})):
            ratio = typical(settings, **size) / base
            failed |= ratio > 8 * 1.25
            print(f"{name}, {what}: {ratio:.1f} times the round of 5 clients, d = 300 (linear: 8)")
    long = round_seconds(grown, rounds=120)
    late = np.median(long[100:]) / np.median(long[30:50])
    failed |= late > 1.25
    print(f"improved: rounds 101-120 take {late:.2f} times rounds 31-50 (flat: 1)")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

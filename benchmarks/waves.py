"""Updates a second of asynchronous rounds, as a share of synchronous ones of the same size.

    python benchmarks/waves.py [--rounds 200]

M = 100 clients at work, the server steps with every 10th answer; against cohorts of 10. Both have a
clock, nobody judges x meanwhile, and the first waves (all devices unknown) are left out.
Alternating runs, medians.
"""

import argparse
import statistics
import time
from typing import Any

import torch

from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

CLOCK = {"fleet.preset": "mobile", "fleet.query_s": 0.05, "strategy.evaluate_every": 0}
WORLDS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "network of 25,450, 10 steps": (
        "classification", "fedavg", "fedbuff", {"scenario.dataset": "mnist5k"},
    ),
    "quadratic of 300, FedZO": ("quadratic", "fedzo", "fedbuff_zo", {"scenario.dim": 300}),
}  # fmt: skip
CLIENTS = 300


def rate(world: str, strategy: str, more: dict[str, Any], rounds: int, skip: int) -> float:
    """Return updates a second after the first rounds."""
    made = make_experiment(
        world, strategy, num_clients=CLIENTS, num_rounds=rounds + skip,
        settings={**CLOCK, **more},
    )  # fmt: skip
    at: list[float] = []
    simulate(made, callbacks=[lambda _: at.append(time.perf_counter())])
    return 10 * rounds / (at[-2] - at[skip])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name, (world, plain, buffered, settings) in WORLDS.items():
        shares = []
        for _ in range(3):
            cohort = {**settings, "strategy.participation": 10 / CLIENTS}
            waves = {**settings, "strategy.participation": 100 / CLIENTS, "strategy.buffer": 10}
            for refill in ("arrival", "step"):
                usual = rate(world, plain, cohort, chosen.rounds, 20)
                going = rate(
                    world, buffered, {**waves, "strategy.refill": refill}, chosen.rounds, 100
                )
                shares.append((refill, usual, going))
        for refill in ("arrival", "step"):
            found = [(u, g) for kind, u, g in shares if kind == refill]
            ratio = statistics.median(g / u for u, g in found)
            usual, going = (statistics.median(each) for each in zip(*found, strict=True))
            print(
                f"{name}, {refill}: {going:,.0f} updates/s, synchronous {usual:,.0f}: {ratio:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

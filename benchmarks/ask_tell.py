"""CPU time of asking and telling, an evaluation, in batches of 100 at d = 100.

    python benchmarks/ask_tell.py [--dim 100] [--evaluations 5000]

The function costs nothing to speak of, so what is measured is the search itself. `pycma` is the
package alone, with the same population; its difference to `cma` is the face.
"""

import argparse
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"

import cma
import numpy as np
import torch

import fedzo

torch.set_num_threads(1)
BATCH = 100


def valley(x: np.ndarray) -> np.ndarray:
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def ours(method: str, dim: int, evaluations: int) -> float:
    """Return the seconds of CPU of a search."""
    parallel = BATCH if method in ("random", "cma") else 1
    opt = fedzo.Optimizer(
        [-0.5] * dim, (-5, 5), method=method, budget=evaluations, parallel=parallel
    )
    began = time.process_time()
    while not opt.stop:
        points = opt.ask()
        opt.tell(points, valley(points))
    return (time.process_time() - began) / opt.asked


def alone(dim: int, evaluations: int) -> float:
    options = {"popsize": BATCH, "bounds": [-5, 5], "verbose": -9, "verb_log": 0, "seed": 1}
    es = cma.CMAEvolutionStrategy([-0.5] * dim, 3.0, options)
    began = time.process_time()
    for _ in range(evaluations // BATCH):
        points = es.ask()
        es.tell(points, valley(np.array(points)).tolist())
    return (time.process_time() - began) / evaluations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--evaluations", type=int, default=5000)
    given = parser.parse_args()
    for method in ("random", "cma", "fedzo", "fzoos", "auto"):
        seconds = ours(method, given.dim, given.evaluations)
        print(f"{method:8} {1e3 * seconds:.3f} ms an evaluation")
    print(f"{'pycma':8} {1e3 * alone(given.dim, given.evaluations):.3f} ms an evaluation")


if __name__ == "__main__":
    main()

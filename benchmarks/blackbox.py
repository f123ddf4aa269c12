"""fedzo.minimize against pycma, nevergrad's NGOpt and scipy at equal evaluations.

    python benchmarks/blackbox.py [--dims 10,100,1000] [--seeds 5] [--methods auto,cma]
        [--out FILE.jsonl] [--table]

Five functions with shifted optima in [-3, 3]^d, none of them rotated, in the box [-5, 5]^d, from
starts drawn in it; the minimum is 0 for all. Every method gets the same start, box and budget, no
tuning, and its values are counted outside of it. --table prints what a file holds as Markdown.
nevergrad is not among fedzo's dependencies: pip install nevergrad.
"""

import argparse
import json
import logging
import math
import os
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

# ruff: noqa: E402
import numpy as np
import torch
from numpy.typing import NDArray

import fedzo

torch.set_num_threads(1)
BUDGETS = {10: 1000, 100: 5000, 1000: 3000}
SHARES = (0.2, 1.0)
OURS = ("auto", "fzoos", "fedzo", "cma")
OTHERS = ("pycma", "NGOpt", "L-BFGS-B", "dual annealing")
Function = Callable[[NDArray[np.float64]], float]


def sphere(z: NDArray[np.float64]) -> float:
    return float(z @ z)


def ellipsoid(z: NDArray[np.float64]) -> float:
    return float(np.logspace(0, 6, len(z)) @ (z * z))


def rosenbrock(z: NDArray[np.float64]) -> float:
    x = z + 1
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def rastrigin(z: NDArray[np.float64]) -> float:
    return float(10 * len(z) + (z * z - 10 * np.cos(2 * np.pi * z)).sum())


def ackley(z: NDArray[np.float64]) -> float:
    far, wave = math.sqrt(float((z * z).mean())), float(np.cos(2 * np.pi * z).mean())
    return -20 * math.exp(-0.2 * far) - math.exp(wave) + 20 + math.e


FUNCTIONS = (sphere, ellipsoid, rosenbrock, rastrigin, ackley)


class Spent(Exception):
    """The budget is spent."""


class Counted:
    """A shifted function that notes its lowest value and raises when its budget is spent."""

    def __init__(self, function: Callable[..., float], dim: int, seed: int) -> None:
        drawn = np.random.default_rng([seed, dim, FUNCTIONS.index(function)])
        self.optimum, self.start = drawn.uniform(-3, 3, dim), drawn.uniform(-5, 5, dim)
        self.budget = BUDGETS[dim]
        self._function, self._count, self._lowest = function, 0, math.inf
        self.curve: list[float] = []

    def __call__(self, x: NDArray[np.float64]) -> float:
        if len(self.curve) >= self.budget:
            raise Spent
        x = np.clip(np.asarray(x, dtype=np.float64), -5, 5)
        value = self._function(x - self.optimum)
        self._lowest = min(self._lowest, value)
        self.curve.append(self._lowest)
        return value


def by_pycma(f: Counted, seed: int) -> None:
    import cma

    options = {"bounds": [-5, 5], "seed": seed + 1, "verbose": -9, "verb_log": 0}
    options["CMA_diagonal"] = len(f.start) > 200  # a full matrix of 1000 x 1000 takes minutes
    while True:
        es = cma.CMAEvolutionStrategy(f.start, 3.0, options)
        while not es.stop():
            points = es.ask()
            es.tell(points, [f(x) for x in points])
        options["popsize"] = 2 * es.popsize
        options["seed"] += 1


def by_ngopt(f: Counted, seed: int) -> None:
    import nevergrad as ng
    from nevergrad.optimization import metamodel

    # nevergrad 1.0.12 takes float() of an array with one number, which numpy no longer allows.
    metamodel.float = lambda array: np.asarray(array).reshape(()).item()

    space = ng.p.Array(init=f.start).set_bounds(-5, 5)
    space.random_state.seed(seed)
    optimizer = ng.optimizers.NGOpt(parametrization=space, budget=f.budget)
    while True:
        point = optimizer.ask()
        optimizer.tell(point, f(point.value))


def by_lbfgs(f: Counted, seed: int) -> None:
    from scipy.optimize import minimize

    drawn, start = np.random.default_rng(seed), f.start
    while True:
        minimize(f, start, method="L-BFGS-B", bounds=[(-5, 5)] * len(start))
        start = drawn.uniform(-5, 5, len(start))


def by_annealing(f: Counted, seed: int) -> None:
    from scipy.optimize import dual_annealing

    dual_annealing(f, [(-5, 5)] * len(f.start), x0=f.start, rng=seed, maxiter=10**6)


def run(name: str, f: Counted, seed: int) -> None:
    """Spend the budget of f by a method."""
    if name in OURS:
        box = (-5, 5)
        fedzo.minimize(f, f.start, box, budget=f.budget, method=name, seed=seed)
        return
    other = dict(zip(OTHERS, (by_pycma, by_ngopt, by_lbfgs, by_annealing), strict=True))[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            other(f, seed)
        except Spent:
            return


Wanted = tuple[int, str, str, int]
"""A run's dimension, function, method and seed."""


def measured(
    dims: list[int], names: list[str], seeds: int, done: set[Wanted]
) -> Iterator[dict[str, Any]]:
    """Yield a record a run that is not done."""
    for dim in dims:
        for function in FUNCTIONS:
            for name in names:
                for seed in range(seeds):
                    if (dim, function.__name__, name, seed) in done:
                        continue
                    f = Counted(function, dim, seed)
                    began = time.process_time()
                    run(name, f, seed)
                    seconds = time.process_time() - began
                    at = [f.curve[min(len(f.curve), int(s * f.budget)) - 1] for s in SHARES]
                    yield {
                        "dim": dim, "function": function.__name__, "method": name, "seed": seed,
                        "values": at, "evaluations": len(f.curve), "seconds": seconds,
                    }  # fmt: skip


def table(records: list[dict[str, Any]]) -> str:
    """Return medians over seeds as Markdown, the lowest of a row in bold, and the CPU time."""
    cells: dict[Any, list[float]] = defaultdict(list)
    spent: dict[Any, list[float]] = defaultdict(list)
    for record in records:
        for share, value in zip(SHARES, record["values"], strict=True):
            key = (record["dim"], record["function"], share)
            cells[key, record["method"]].append(value)
        own = 1e3 * record["seconds"] / record["evaluations"]
        spent[record["dim"], record["method"]].append(own)
    names = [n for n in (*OURS, *OTHERS) if any(name == n for _, name in cells)]
    lines = [row("function", "d", "evaluations", *names), row(*["---"] * (3 + len(names)))]
    for key in sorted(dict.fromkeys(key for key, _ in cells), key=lambda key: key[0]):
        dim, function, share = key
        medians = [statistics.median(cells.get((key, n)) or [math.inf]) for n in names]
        shown = [marked(value, min(medians)) for value in medians]
        lines.append(row(function, dim, int(share * BUDGETS[dim]), *shown))
    for dim in sorted(dict.fromkeys(dim for dim, _ in spent)):
        costs = [statistics.mean(spent.get((dim, n)) or [math.inf]) for n in names]
        shown = [f"{cost:.2f}" if cost < math.inf else "" for cost in costs]
        lines.append(row("*ms an evaluation*", dim, "", *shown))
    return "\n".join(lines)


def row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def marked(value: float, lowest: float) -> str:
    if value == math.inf:
        return ""
    return f"**{value:.2g}**" if value == lowest else f"{value:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", default="10,100,1000")
    parser.add_argument("--methods", default=",".join((*OURS, *OTHERS)))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("blackbox.jsonl"))
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    if not given.table:
        dims, names = [int(d) for d in given.dims.split(",")], given.methods.split(",")
        before = given.out.read_text().splitlines() if given.out.exists() else []
        keys = ("dim", "function", "method", "seed")
        done = {tuple(json.loads(line)[key] for key in keys) for line in before}
        with given.out.open("a") as file:
            for record in measured(dims, names, given.seeds, done):
                print(json.dumps(record), file=file, flush=True)
    print(table([json.loads(line) for line in given.out.read_text().splitlines()]))


if __name__ == "__main__":
    main()

"""What `auto` chooses, against `cma` and `fzoos`, on functions beside those of blackbox.py.

    python benchmarks/blackbox_rule.py [--dims 10,100] [--seeds 5] [--out FILE.jsonl] [--table]

Seventeen functions, some rotated by a random matrix, and eight with noise, shifted to optima in
[-3, 3]^d, in the box [-5, 5]^d, from starts drawn in it. What is reported is the function without
its noise at the point that a method calls the best; the minimum is 0. --table prints what a file
holds as Markdown, medians over seeds.
"""

import argparse
import itertools
import json
import logging
import math
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

# ruff: noqa: E402
import numpy as np
import torch
from numpy.typing import NDArray

import fedzo

sys.path.insert(0, str(Path(__file__).parent))
from blackbox import FUNCTIONS, Function, ackley, ellipsoid, rastrigin, rosenbrock, row, sphere

torch.set_num_threads(1)
BUDGETS = {10: 1000, 100: 5000}
METHODS = ("auto", "fzoos", "cma")
Point = NDArray[np.float64]


def levy(z: Point) -> float:
    w = 1 + z / 4
    inner = ((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)).sum()
    last = (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
    return float(np.sin(np.pi * w[0]) ** 2 + inner + last)


def griewank(z: Point) -> float:
    x = 10 * z
    waves = np.cos(x / np.sqrt(np.arange(1, len(x) + 1)))
    return float(1 + x @ x / 4000 - waves.prod())


def styblinski(z: Point) -> float:
    """Two valleys a coordinate, of fourth degree."""
    x = z / 2 - 2.903534018185960
    return float(39.16616570377142 * len(z) + (x**4 - 16 * x**2 + 5 * x).sum() / 2)


def zakharov(z: Point) -> float:
    along = float((0.5 * np.arange(1, len(z) + 1) / len(z) * z).sum())
    return float(z @ z) + along**2 + along**4


def dixon_price(z: Point) -> float:
    """From its known optimum; another stationary point has 2 / 3."""
    number = np.arange(1, len(z) + 1)
    x = z + 2.0 ** -((2.0**number - 2) / 2.0**number)
    inner = number[1:] * (2 * x[1:] ** 2 - x[:-1]) ** 2
    return float((x[0] - 1) ** 2 + inner.sum())


def sum_of_moduli(z: Point) -> float:
    return float(np.abs(z).sum())


def distance(z: Point) -> float:
    return math.sqrt(float(z @ z))


def log_ellipsoid(z: Point) -> float:
    return math.log1p(float(np.logspace(0, 3, len(z)) @ (z * z)))


def rotated(function: Function) -> Function:
    """Return the function after a rotation, the same for all seeds."""

    @cache
    def rotation(dim: int) -> Point:
        return np.linalg.qr(np.random.default_rng(dim).normal(size=(dim, dim)))[0]

    def turned(z: Point) -> float:
        return function(rotation(len(z)) @ z)

    turned.__name__ = f"rotated {function.__name__}"
    return turned


PLAIN: tuple[Function, ...] = (
    *FUNCTIONS, levy, griewank, styblinski, zakharov, dixon_price, sum_of_moduli, distance,
    log_ellipsoid, rotated(ellipsoid), rotated(rosenbrock), rotated(ackley), rotated(rastrigin),
)  # fmt: skip
NOISY: tuple[tuple[Function, str, float], ...] = (
    *((sphere, "added", size) for size in (0.1, 1.0, 10.0)),
    *((sphere, "share", size) for size in (0.01, 0.1)),
    *((rosenbrock, "added", size) for size in (10.0, 1000.0)),
    (rosenbrock, "share", 0.01),
)
"""A function, whether noise is added or a share of the value, and its standard deviation."""


def noised(function: Function, kind: str, size: float, seed: int) -> Function:
    """Return the function with noise that depends on the number of the call alone."""
    calls = itertools.count()

    def told(z: Point) -> float:
        drawn = size * float(np.random.default_rng([next(calls), seed]).normal())
        value = function(z)
        return value + (drawn if kind == "added" else drawn * value)

    return told


def cases() -> Iterator[tuple[str, Function, Callable[[int], Function]]]:
    """Yield a name, what is reported, and what is asked for a seed."""
    for function in PLAIN:
        yield function.__name__, function, lambda _, f=function: f  # type: ignore[misc]
    for function, kind, size in NOISY:
        name = f"{function.__name__}, noise {size:g}" + (" of it" if kind == "share" else "")
        yield name, function, lambda s, a=(function, kind, size): noised(*a, s)  # type: ignore[misc]


def measured(dims: list[int], seeds: int) -> Iterator[dict[str, Any]]:
    """Yield a record a run."""
    for dim in dims:
        for name, plain, asked in cases():
            for method, seed in itertools.product(METHODS, range(seeds)):
                drawn = np.random.default_rng([seed, dim, 11])
                optimum, start = drawn.uniform(-3, 3, dim), drawn.uniform(-5, 5, dim)
                told = asked(seed)
                found = fedzo.minimize(
                    lambda x, f=told, o=optimum: f(np.clip(x, -5, 5) - o),  # type: ignore[misc]
                    start,
                    (-5, 5),
                    budget=BUDGETS[dim],
                    method=method,
                    seed=seed,
                )
                best = int(np.nanargmin(found.values[: BUDGETS[dim] // 5]))
                ends = [plain(np.asarray(x) - optimum) for x in (found.points[best], found.x)]
                yield {
                    "dim": dim, "function": name, "method": method, "seed": seed, "values": ends,
                    "why": found.why,
                }  # fmt: skip


def table(records: list[dict[str, Any]]) -> str:
    """Return medians over seeds as Markdown, and how often `auto` has begun with cma."""
    ends: dict[Any, list[list[float]]] = defaultdict(list)
    begun: dict[Any, list[bool]] = defaultdict(list)
    for record in records:
        key = (record["dim"], record["function"])
        ends[key, record["method"]].append(record["values"])
        if record["method"] == "auto":
            begun[key].append(record["why"].startswith("cma"))
    names = [f"{n}, {at}" for at in ("a fifth", "end") for n in METHODS]
    lines = [row("d", "function", *names, "begins with cma"), row(*["---"] * (3 + len(names)))]
    for key, chosen in begun.items():
        cells = [
            f"{statistics.median(v[at] for v in ends[key, name]):.2g}"
            for at in (0, 1)
            for name in METHODS
        ]
        lines.append(row(*key, *cells, f"{sum(chosen)} of {len(chosen)}"))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", default="10,100")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("blackbox_rule.jsonl"))
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    if not given.table:
        with given.out.open("w") as file:
            for record in measured([int(d) for d in given.dims.split(",")], given.seeds):
                print(json.dumps(record), file=file, flush=True)
    print(table([json.loads(line) for line in given.out.read_text().splitlines()]))


if __name__ == "__main__":
    main()

"""Speed of the robust rules, against byzfl's torch path in the same run.

    python benchmarks/aggregation.py [--byzfl DIR] [--dim 1000000] [--quick]

Every rule at n = 20 and n = 100 vectors of dim numbers, float32, one torch thread, f = n / 10;
seconds are medians of `repeats` runs that alternate between the two. byzfl is not a dependency:
`pip install --no-deps --target DIR byzfl==0.0.11`; without --byzfl only fedzo's times are shown.
smea and minimum_diameter look at all subsets of n - f in byzfl, which n = 100 forbids; there they
run alone where they can. byzfl's mixing copies n^2 d numbers, 36 GB at n = 100: a tenth of the
columns is compared there. Also: the local steps of 26 MoNNA nodes as one batched program, against
one node after the other. Exits 1 where a limit is missed: not slower than byzfl, nearest-neighbor
mixing three times as fast.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from byzfl_reference import import_byzfl
from torch import Tensor

from fedzo import aggregation
from fedzo.errors import ConfigError
from fedzo.objectives.cohort import cohort_gradient
from scenarios.problems.classification import ClassificationConfig, ClassificationScenario

Timed = Callable[[], object]


def seconds(functions: list[Timed], repeats: int) -> list[float]:
    """Return the median time of each, run in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for own, function in zip(times, functions, strict=True):
            start = time.perf_counter()
            function()
            own.append(time.perf_counter() - start)
    return [median(own) for own in times]


def rules(vectors: Tensor, f: int, byzfl: object) -> dict[str, tuple[Timed, Timed | None]]:
    """Return for each rule what to time here, and byzfl's equivalent."""

    def own(name: str, **options: object) -> Timed:
        return lambda: getattr(aggregation, name)(vectors, num_byzantine=f, **options)

    def theirs(name: str, copied: bool = False, **options: object) -> Timed | None:
        if byzfl is None:
            return None
        rule = getattr(byzfl, name)(**options)
        return lambda: rule(vectors.clone() if copied else vectors)

    generator = np.random.default_rng(0)
    few = len(vectors) <= 20
    return {
        "trimmed_mean": (own("trimmed_mean"), theirs("TrMean", f=f)),
        "median": (own("median"), theirs("Median")),
        "mean_around_median": (own("mean_around_median"), theirs("Meamed", f=f)),
        "geometric_median (3 steps)": (
            own("geometric_median", smoothing=0.1, num_iterations=3),
            theirs("GeometricMedian", nu=0.1, T=3),
        ),
        "geometric_median (to rest)": (own("geometric_median"), None),
        "krum": (own("krum"), theirs("Krum", f=f)),
        "multi_krum": (own("multi_krum"), theirs("MultiKrum", f=f)),
        "centered_clipping": (
            own("centered_clipping", radius=100.0),
            theirs("CenteredClipping", L=1, tau=100.0),
        ),
        "minimum_diameter": (own("minimum_diameter"), theirs("MDA", f=f) if few else None),
        "smea": (own("smea"), theirs("SMEA", f=f) if few else None),
        "caf": (own("caf"), theirs("CAF", f=f)),
        "nearest_neighbor_average": (own("nearest_neighbor_average"), theirs("MoNNA", f=f, idx=0)),
        "nearest_neighbor_mixing": (own("nearest_neighbor_mixing"), theirs("NNM", f=f)),
        "bucketing": (
            lambda: aggregation.bucketing(vectors, num_byzantine=f, generator=generator),
            theirs("Bucketing", s=2),
        ),
        "clip": (own("clip", radius=2.0), theirs("Clipping", copied=True, c=2.0)),
        "adaptive_clip": (own("adaptive_clip"), theirs("ARC", copied=True, f=f)),
    }


def node_steps(repeats: int) -> list[float]:
    """Return seconds for one step of 26 nodes: batched, and one after the other."""
    config = ClassificationConfig(dataset="mnist5k", hidden=100, partition="iid")
    scenario = ClassificationScenario(config, num_clients=26, seed=0)
    x = scenario.problem(0).initial_x.expand(26, -1)
    batch = torch.arange(25).expand(26, -1)
    together = scenario.cohort(range(26), 0).minibatch(batch)  # type: ignore[attr-defined]
    alone = [scenario.cohort([i], 0).minibatch(batch[:1]) for i in range(26)]  # type: ignore[attr-defined]
    return seconds(
        [
            lambda: cohort_gradient(together, x),
            lambda: [cohort_gradient(part, x[:1]) for part in alone],
        ],
        repeats,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--byzfl", type=Path)
    parser.add_argument("--dim", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="n = 20 only, one repeat")
    given = parser.parse_args()
    torch.set_num_threads(1)
    byzfl = import_byzfl(given.byzfl) if given.byzfl else None
    missed: list[str] = []
    for n in (20,) if given.quick else (20, 100):
        vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(n, given.dim))).float()
        repeats = 1 if given.quick else (5 if n == 20 else 3)
        print(f"n = {n}, d = {given.dim:,}, f = {n // 10}: seconds, byzfl's, ratio", flush=True)
        tenth = rules(vectors[:, : given.dim // 10].contiguous(), n // 10, byzfl)
        for name, (own, other) in rules(vectors, n // 10, byzfl).items():
            if n == 100 and name == "nearest_neighbor_mixing" and other:
                print(f"  {name:28} {seconds([own], repeats)[0]:8.3f}  (byzfl: n^2 d numbers,")
                print("    36 GB; the ratio is that of a tenth of the columns)")
                own, other = tenth[name]
            try:
                times = seconds([own, *([other] if other else [])], repeats)
            except ConfigError as error:
                print(f"  {name:28} {error}", flush=True)
                continue
            line = f"  {name:28} {times[0]:8.3f}"
            if other:
                ratio = times[1] / times[0]
                line += f" {times[1]:8.3f} {ratio:6.1f}x"
                if ratio < (3 if name == "nearest_neighbor_mixing" else 1):
                    missed.append(f"{name} at n = {n}: {ratio:.2f}x")
            print(line, flush=True)
    batched, alone = node_steps(5)
    print(f"26 nodes, batch 25, 784-100-10: {batched:.4f} s together, {alone:.4f} s one by one")
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()

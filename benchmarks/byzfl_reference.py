"""Freeze what byzfl 0.0.11 answers, as numbers for test_aggregation_byzfl.py.

    pip install --no-deps --target DIR byzfl==0.0.11
    python benchmarks/byzfl_reference.py DIR tests/data/byzfl_0.0.11.npz

byzfl's numpy path in float64. Inputs are made again by the test from the same seeds
(`make_inputs`), so only answers are stored, those of all inputs below each other. Only its rules
and attacks are imported, because the rest wants torchvision. Its SMEA takes one step of the power
method from a random start; it is asked where that is exact (d = 1) and where the malicious rows are
so far away that the start cannot matter.
"""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

NUM_INPUTS = 200
"""Half of them random, half with rows of ALIE."""

Rows = NDArray[np.float64]


def make_inputs(number: int) -> tuple[Rows, int, int]:
    """Return vectors [n, 10], num_byzantine and the own row of one input."""
    generator = np.random.default_rng(number)
    n = int(generator.integers(7, 13))
    f = int(generator.integers(1, (n - 1) // 2 + 1))
    vectors = generator.normal(size=(n, 10)) + 3 * generator.normal(size=10)
    if number >= NUM_INPUTS // 2:
        honest = vectors[f:]
        lie = honest.mean(axis=0) + 1.5 * honest.std(axis=0, ddof=1)
        vectors[:f] = lie + 1e-3 * generator.normal(size=(f, 10))
    return vectors, f, int(generator.integers(n))


def make_smea_input(number: int) -> tuple[Rows, int]:
    """Return an input on which byzfl's randomized SMEA has no choice."""
    vectors, f, _ = make_inputs(number)
    if number % 2:
        return vectors[:, :1], f
    vectors[:f] += 1e4 * np.arange(1, f + 1)[:, None]
    return vectors, f


def import_byzfl(place: Path) -> ModuleType:
    """Import byzfl's rules and attacks from a directory, without its training framework."""
    package = ModuleType("byzfl")
    package.__path__ = [str(place / "byzfl")]
    sys.modules["byzfl"] = package
    from byzfl.aggregators import aggregators, preaggregators
    from byzfl.attacks import attacks

    for module in (aggregators, preaggregators, attacks):
        for name, value in vars(module).items():
            if isinstance(value, type):
                setattr(package, name, value)
    return package


def main() -> None:
    """Write the answers."""
    byzfl, target = import_byzfl(Path(sys.argv[1])), Path(sys.argv[2])
    answers: dict[str, list[Rows]] = {}
    for number in range(NUM_INPUTS):
        vectors, f, own = make_inputs(number)
        few, few_f = make_smea_input(number)
        honest = list(vectors[f:])
        found = {
            "trimmed_mean": byzfl.TrMean(f=f)(vectors),
            "median": byzfl.Median()(vectors),
            "krum": byzfl.Krum(f=f)(vectors),
            "multi_krum": byzfl.MultiKrum(f=f)(vectors),
            "mean_around_median": byzfl.Meamed(f=f)(vectors),
            "nearest_neighbor_average": byzfl.MoNNA(f=f, idx=own)(vectors),
            "minimum_diameter": byzfl.MDA(f=f)(vectors),
            "nearest_neighbor_mixing": byzfl.NNM(f=f)(vectors),
            "centered_clipping": byzfl.CenteredClipping(L=3, tau=2.0)(vectors),
            "adaptive_clip": byzfl.ARC(f=f)(vectors.copy()).mean(axis=0),
            "clip": byzfl.Clipping(c=2.0)(vectors.copy()).mean(axis=0),
            "smea": np.resize(byzfl.SMEA(f=few_f)(few), 10),
            "alie": byzfl.ALittleIsEnough(tau=1.5)(honest),
            "inner_product": byzfl.InnerProductManipulation(tau=2.0)(honest),
        }
        for name, answer in found.items():
            answers.setdefault(name, []).append(answer)
    np.savez_compressed(target, **{name: np.vstack(rows) for name, rows in answers.items()})


if __name__ == "__main__":
    main()

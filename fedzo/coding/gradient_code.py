"""Codes of gradients: n workers, each a combination of s + 1 parts, any n - s of which are enough.

    worker i sends  r_i = sum_j B[i, j] g_j;      sum_j g_j = sum_i a_i r_i  over who has answered

Tandon et al., "Gradient Coding: Avoiding Stragglers in Distributed Learning", ICML 2017: where
s + 1 divides n, groups of s + 1 workers with the same parts (their fractional repetition, exact in
floating point); else the cyclic code of algorithm 2, whose B is made of a random H [s, n] with rows
that sum to 0: row i is zero outside of i .. i + s (mod n) and H B^T = 0. Decoding that enlarges
errors of r_i by |a| |B|: at 12 to 50 workers some hundred times for most sets, 3e5 times at worst.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedzo.config import require
from fedzo.randomness import stream

Floats = NDArray[np.float64]
_EXACT = 1e-8
"""Error of the sum of all parts up to which a set of workers decodes."""


@dataclass(frozen=True, slots=True)
class GradientCode:
    """A code of so many workers and parts that bears so many stragglers.

    Raises ConfigError unless 0 <= stragglers < workers.
    """

    workers: int
    stragglers: int

    def __post_init__(self) -> None:
        require(self.workers >= 1, "workers", self.workers, "at least 1")
        allowed = f"from 0 to {self.workers - 1}, below the workers"
        require(0 <= self.stragglers < self.workers, "stragglers", self.stragglers, allowed)

    @property
    def repeats(self) -> bool:
        """Whether groups have the same parts."""
        return self.workers % (self.stragglers + 1) == 0

    @property
    def matrix(self) -> Floats:
        """B [workers, parts]."""
        return _matrix(self.workers, self.stragglers)

    def parts_of(self, worker: int) -> NDArray[np.int64]:
        """Return the s + 1 parts of a worker."""
        width = self.stragglers + 1
        first = worker // width * width if self.repeats else worker
        return (first + np.arange(width)) % self.workers

    def decode(self, live: Sequence[int]) -> Floats | None:
        """Return what each of these workers counts [len(live)], None where they are too few."""
        return _decoded(self.workers, self.stragglers, tuple(live))


@lru_cache(maxsize=64)
def _matrix(n: int, s: int) -> Floats:
    code = GradientCode(n, s)
    matrix = np.zeros((n, n))
    if code.repeats:
        for worker in range(n):
            matrix[worker, code.parts_of(worker)] = 1.0
        return matrix
    null = stream(0, "gradient code", n, s).standard_normal((s, n))
    null -= null.mean(axis=1, keepdims=True)
    for worker in range(n):
        others = code.parts_of(worker)[1:]
        matrix[worker, worker] = 1.0
        matrix[worker, others] = -np.linalg.solve(null[:, others], null[:, worker])
    return matrix


@lru_cache(maxsize=4096)
def _decoded(n: int, s: int, live: tuple[int, ...]) -> Floats | None:
    code, weights = GradientCode(n, s), np.zeros(len(live))
    if code.repeats:
        groups = [worker // (s + 1) for worker in live]
        for group in set(groups):
            weights[groups.index(group)] = 1.0
        return weights if len(set(groups)) == n // (s + 1) else None
    if len(live) < n - s:
        return None
    rows = _matrix(n, s)[list(live)]
    found = np.asarray(np.linalg.lstsq(rows.T, np.ones(n))[0], dtype=np.float64)
    return found if np.abs(found @ rows - 1).max() < _EXACT else None

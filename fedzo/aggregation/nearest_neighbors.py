"""Nearest-neighbor averaging and mixing: everybody trusts those who say nearly the same.

    average:  the mean of the n - f vectors nearest to x_own, x_own among them
    mixing:   y_i = that mean for every i, [n, d] -> [n, d]; to be followed by another rule

Average: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot & Stephan, "Robust Collaborative Learning with
Linear Gradient Overhead" (MoNNA), ICML 2023. Mixing: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot
& Stephan, "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS 2023,
algorithm 2. Shapes: vectors [n, d]. Cost: n^2 d for mixing (two matrix products), n d for one
average. At equal distances earlier rows are nearer, except that x_own is always kept.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.distances import (
    mean_of,
    nearest,
    squared_distances,
    squared_distances_to,
)
from fedzo.aggregation.krum import krum_scores
from fedzo.aggregation.rows import finite_rows, trusted_rows
from fedzo.config import require
from fedzo.errors import ConfigError


def nearest_neighbor_average(
    vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0, own: int = 0
) -> Float[Tensor, " d"]:
    """Return the mean of the n - f rows nearest to row `own`; rows that are not finite are last.

    A node of MoNNA that waits for n - f of n vectors calls it with those: it then keeps n - 2f.
    Raises ConfigError unless f < n / 2, and when row `own` is not there or not finite.
    """
    n = len(vectors)
    require(0 <= own < n, "own", own, f"the number of a vector, 0 to {n - 1}")
    if not finite_rows(vectors)[own]:
        raise ConfigError(f"vector own={own} is not finite; a node must hold a finite vector")
    rows, f = trusted_rows(vectors, num_byzantine)
    if len(rows) < n:
        own = int(finite_rows(vectors)[:own].sum())
    squares = squared_distances_to(rows, rows[own])
    squares[own] = -1
    return mean_of(rows, nearest(squares.unsqueeze(0), len(rows) - f)[0])


def nearest_neighbor_mixing(
    vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0
) -> Float[Tensor, "n d"]:
    """Return every row replaced by the mean of its n - f nearest, itself among them.

    A row that is not finite becomes what the row with the lowest Krum score becomes. Raises
    ConfigError unless f < n / 2.
    """
    rows, f = trusted_rows(vectors, num_byzantine)
    squares = squared_distances(rows)
    weights = neighbor_weights(squares.fill_diagonal_(-1), len(rows) - f)
    if len(rows) < len(vectors):
        best = int(krum_scores(squares.fill_diagonal_(0), f).argmin())
        spread = weights[best].repeat(len(vectors), 1)
        spread[finite_rows(vectors)] = weights
        weights = spread
    return mixed(weights, rows)


def neighbor_weights(squares: Float[Tensor, "m n"], count: int) -> Float[Tensor, "m n"]:
    """Return, for each row of distances, weights that average the `count` nearest."""
    near = nearest(squares, count)
    return torch.zeros_like(squares).scatter_(1, near, 1 / count)


def mixed(weights: Float[Tensor, "m n"], vectors: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """Return weights @ vectors; float64 weights do not make a float32 product slower."""
    return weights.to(vectors) @ vectors

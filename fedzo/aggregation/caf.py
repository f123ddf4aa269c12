"""The covariance-bound-agnostic filter (CAF).

    c = (1, ..., 1);   while sum c > n - 2f:
        mu = sum_i c_i x_i / sum c
        v, lambda = top eigenpair of sum_i c_i (x_i - mu)(x_i - mu)^T / sum c
        c_i <- c_i (1 - t_i / max t),   t_i = <x_i - mu, v>^2
    result: the mu with the smallest lambda

Allouah, Guerraoui & Stephan, "Towards Trustworthy Federated Learning with Untrusted Participants",
ICML 2025. Malicious vectors that agree among themselves stretch the covariance along what they
want, which is what it looks for. Shapes: vectors [n, d], result [d]. Cost: n^2 d once, and n^3 a
pass, at most n passes.

Differs from byzfl: the eigenpairs are exact, found from the rows' inner products, where byzfl takes
one step of the power method from a random start (so nothing here is drawn, and no seed is needed);
f = 0 gives the mean, where byzfl returns nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.distances import centered_gram
from fedzo.aggregation.rows import trusted_rows


def caf(vectors: Float[Tensor, "n d"], *, num_byzantine: int = 0) -> Float[Tensor, " d"]:
    """Return the filtered mean of the finite rows; raises ConfigError unless f < n / 2."""
    rows, f = trusted_rows(vectors, num_byzantine)
    if f == 0:
        return rows.mean(dim=0)
    return filter_weights(centered_gram(rows), f).to(rows) @ rows


def filter_weights(gram: Float[Tensor, "n n"], num_byzantine: int) -> Float[Tensor, " n"]:
    """Return the weights, summing to 1, of the mean with the smallest top eigenvalue."""
    counts = gram.new_ones(len(gram))
    best, least = counts / counts.sum(), torch.inf
    while float(counts.sum()) > len(gram) - 2 * num_byzantine:
        weights = counts / counts.sum()
        means = gram @ weights
        centered = gram - means - means.unsqueeze(1) + weights @ means
        roots = weights.sqrt()
        values, bases = torch.linalg.eigh(roots * centered * roots.unsqueeze(1))
        if float(values[-1]) < least:
            best, least = weights, float(values[-1])
        shares = (centered @ (roots * bases[:, -1])).square() * (counts > 0)
        if float(shares.max()) == 0:
            break
        counts = counts * (1 - shares / shares.max())
    return best

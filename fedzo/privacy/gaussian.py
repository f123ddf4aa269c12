"""The Gaussian mechanism: how much one record or client can move what is released, and the noise.

    sensitivity = max |f(D) - f(D')|_2 over neighboring D, D';   noise N(0, (z sensitivity)^2 I)

for f = (1 / k) sum_p v_p, the mean over k clients of v_p = (1 / n_p) sum_i clip(g_i, C):

    unit      replace_one          zero_out
    record    2 C / (n_min k)      C / (n_min k)
    client    2 C / k              C / k

Neighbors under zero_out (Kairouz et al., "Practical and private (deep) learning without sampling or
shuffling", ICML 2021) have as many records and clients, and one of these gives a vector of zeros in
one of the two. That does not hide whether it takes part at all: n_p and k, which divide, change
then, and the mean moves by up to 2 C / n_p.

A rule that sorts each coordinate and averages the k - 2 f inner ones (trimmed mean; the median of
an odd k is the case k - 2 f = 1, of an even one k - 2 f = 2) has k - 2 f in the place of k. Proof:
sorting does not increase the l1 distance of two vectors, so when one client's v_p changes by D in
R^d, coordinate j of the sum of the inner ones changes by at most |D_j|, and the result by at most
|D|_2 / (k - 2 f). With f = 0 it is the mean. No bound is known to us for other rules: they choose
clients, and a small change can change the choice. They are refused.

Differs from the published code of DIFF2: n_min is the least n_p, and every record of client p
weighs 1 / (k n_p). Rounding never makes a record longer than C (fedzo.privacy.rounding); that of
sums and of the noise is not covered (Mironov, "On significance of the least significant bits for
differential privacy", CCS 2012).
"""

import secrets
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation import Aggregator
from fedzo.errors import ConfigError
from fedzo.randomness import Part, stream

Unit = Literal["record", "client"]
Adjacency = Literal["replace_one", "zero_out"]
NoiseSource = Literal["os", "stream"]


def sensitivity(
    clip_norm: float, *, unit: Unit, adjacency: Adjacency, num_records: int, averaged: int
) -> float:
    """Return the L2 sensitivity of a mean of clients' clipped means.

    num_records: of the client that has fewest; averaged: k, or k - 2 f (see `num_averaged`).
    """
    moved = 2 * clip_norm if adjacency == "replace_one" else clip_norm
    return moved / averaged / (num_records if unit == "record" else 1)


def num_averaged(rule: Aggregator, num_clients: int, num_byzantine: int) -> int:
    """Return how many vectors a rule averages in each coordinate.

    Raises ConfigError for rules without a known bound on their sensitivity.
    """
    if rule.is_mean and num_byzantine == 0:
        return num_clients
    if [stage.name for stage in rule.stages] == ["trimmed_mean"]:
        return num_clients - 2 * num_byzantine
    if [stage.name for stage in rule.stages] == ["median"]:
        return 1 if num_clients % 2 else 2
    if rule.is_mean:
        raise ConfigError(
            f"aggregator=mean withstands no liars; with num_byzantine={num_byzantine} use"
            " trimmed_mean or median"
        )
    raise ConfigError(
        f"aggregator={rule.text!r} has no known bound on its sensitivity, so no noise makes it"
        " private; use mean, trimmed_mean or median"
    )


def gaussian_noise(
    size: int, std: float, source: NoiseSource, seed: int, *where: Part
) -> Float[Tensor, " k"]:
    """Return noise: of a stream of its own (simulation), or of the operating system's entropy.

    Whoever knows the seed of a run can make the stream's noise again and take it off, so where
    clients are real it must be `os`.
    """
    if std == 0:
        return torch.zeros(size, dtype=torch.float64)
    generator = private_generator(source, seed, *where)
    return std * torch.from_numpy(generator.standard_normal(size))


def private_generator(source: NoiseSource, seed: int, *where: Part) -> np.random.Generator:
    """Return the generator behind noise, and behind samples whose secrecy counts."""
    if source == "os":
        return np.random.Generator(np.random.PCG64(secrets.randbits(128)))
    return stream(seed, "privacy", *where)

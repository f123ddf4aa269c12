"""Randomness that is derived, never shared.

    stream(seed, "directions", round, client)  ->  a generator of its own

The parts are hashed (BLAKE2b, 128 bits) into the seed of a PCG64 generator, so two different lists
of parts give independent streams, in any order, process or machine, and nothing reads or sets a
global state. Nothing else in fedzo creates a generator. Directions that are drawn block by block,
on any device, are functions of a key instead: fedzo.estimation.keys.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Part = int | str

_WEYL = np.uint64(0x9E3779B97F4A7C15)
_EPOCH = np.uint64(0xD1342543DE82EF95)


def _digest(parts: tuple[Part, ...], size: int) -> int:
    return int.from_bytes(
        hashlib.blake2b(repr(parts).encode(), digest_size=size).digest(), "little"
    )


def stream(seed: int, *parts: Part) -> np.random.Generator:
    """Return the generator that belongs to `seed` and `parts`, always in its initial state."""
    return np.random.Generator(np.random.PCG64(_digest((int(seed), *parts), 16)))


def key64(seed: int, *parts: Part) -> int:
    """Return the 64 bits that key what belongs to `seed` and `parts` in a counter-based draw."""
    return _digest((int(seed), *parts), 8)


def streams(seed: int, *parts: Part, clients: Sequence[int]) -> list[np.random.Generator]:
    """Return `stream(seed, *parts, client)` for each client."""
    return [stream(seed, *parts, client) for client in clients]


def uniforms(
    seed: int, *parts: Part, clients: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return a number in (0, 1) for each client [n], which depends on (seed, parts, client) alone.

    SplitMix64 outputs as in `permutations`: some ten million a second.
    """
    base = np.uint64(key64(seed, *parts))
    words = _mix(base + np.asarray(clients, dtype=np.uint64) * _WEYL) >> np.uint64(11)
    return np.asarray((words + 0.5) * 2.0**-53, dtype=np.float64)


def uniform_rows(seed: int, *parts: Part, clients: Sequence[int], size: int) -> NDArray[np.float64]:
    """Return `size` numbers in (0, 1) for each client [n, size], as `uniforms` does."""
    keys = _client_keys(seed, parts, clients)
    words = _mix(keys[:, None] + np.arange(size, dtype=np.uint64) * _WEYL) >> np.uint64(11)
    return np.asarray((words + 0.5) * 2.0**-53, dtype=np.float64)


def permutations(
    seed: int, *parts: Part, clients: Sequence[int], size: int, count: int = 1
) -> NDArray[np.int64]:
    """Return `count` random permutations of `range(size)` for each client, [n, count, size].

    Row i depends on (seed, parts, clients[i], size) alone. The sort keys are SplitMix64 outputs
    (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), made for
    the whole cohort at once: a generator object a client would cost five times as much.
    """
    keys = _client_keys(seed, parts, clients)
    epochs = np.arange(count, dtype=np.uint64) * _EPOCH
    slots = np.arange(size, dtype=np.uint64) * _WEYL
    return _mix(keys[:, None, None] + (epochs[:, None] + slots)).argsort(axis=-1)


def _client_keys(seed: int, parts: tuple[Part, ...], clients: Sequence[int]) -> NDArray[np.uint64]:
    """Return a word for each client [n], of which its numbers are made."""
    base = np.uint64(key64(seed, *parts))
    return _mix(base + np.asarray(clients, dtype=np.uint64) * _WEYL)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

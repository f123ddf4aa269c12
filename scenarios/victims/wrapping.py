"""Wrappers around a victim from words, from the inside to the outside.

labels, order, top=K, rounded=DECIMALS, noisy=STD, limit=QUERIES, latency=SECONDS,
detector=DISTANCE, jpeg=QUALITY, bits=BITS (what is asked is squeezed), smoothed=SIGMA (the vote of
32 noisy copies), defense=DIRECTORY (the same, purified by what `fedzo defend` made).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fedzo.attacks.victims.detector import DuplicateDetector
from fedzo.attacks.victims.showing import Jpeg, fewer_bits
from fedzo.attacks.victims.victim import Victim
from fedzo.attacks.victims.wrappers import (
    LabelOnly,
    Latency,
    NoisyScores,
    OrderOnly,
    QueryLimit,
    RoundedScores,
    TopScores,
)
from fedzo.config import unknown_key
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.victims.defense import load_defense
from scenarios.victims.smoothed import SmoothedVictim

DRAWING = ("noisy", "smoothed", "defense")
"""Wrappers that draw random numbers."""


def wrapped(victim: Victim, wrappers: Sequence[str], seed: int, classes: int = 10) -> Victim:
    """Return a victim of so many classes inside wrappers given as words."""
    for number, word in enumerate(wrappers):
        name, _, value = word.partition("=")
        victim = _wrap(victim, name, value, classes, stream(seed, "wrapper", number))
    return victim


def _wrap(
    victim: Victim, name: str, value: str, classes: int, generator: np.random.Generator
) -> Victim:
    smooth = partial(SmoothedVictim, num_classes=classes, generator=generator)
    plain: dict[str, Callable[[], Victim]] = {
        "labels": lambda: LabelOnly(victim),
        "order": lambda: OrderOnly(victim),
    }
    whole: dict[str, Callable[[int], Victim]] = {
        "top": lambda k: TopScores(victim, k),
        "rounded": lambda decimals: RoundedScores(victim, decimals),
        "limit": lambda queries: QueryLimit(victim, queries),
        "jpeg": lambda quality: Jpeg(victim, quality),
        "bits": lambda bits: fewer_bits(victim, bits),
    }
    real: dict[str, Callable[[float], Victim]] = {
        "noisy": lambda std: NoisyScores(victim, std, generator=generator),
        "latency": lambda seconds: Latency(victim, seconds),
        "detector": lambda distance: DuplicateDetector(victim, distance),
        "smoothed": lambda sigma: smooth(victim, None, sigma),
    }
    if name in plain and not value:
        return plain[name]()
    if name == "defense" and value:
        defense = load_defense(Path(value))
        return smooth(victim, defense.purifier, defense.config.sigma)
    try:
        if name in whole:
            return whole[name](int(value))
        if name in real:
            return real[name](float(value))
    except ConfigError as error:
        raise ConfigError(f"wrapper {name}={value}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"wrapper {name}={value!r} needs a number, such as {name}=2") from error
    if name in plain:
        raise ConfigError(f"wrapper {name} takes no value, got {value!r}")
    raise unknown_key(name, [*plain, *whole, *real, "defense=DIRECTORY"], what="wrapper")

"""Rules by name, and one after the other: `nearest_neighbor_mixing | trimmed_mean`.

A text such as `bucketing(size=2) | geometric_median(smoothing=0.1)` names stages from left to
right. All but the last hand on vectors (nearest_neighbor_mixing, bucketing, clip, adaptive_clip),
the last makes one of them. `nnm` is short for nearest_neighbor_mixing. A stage may be a function of
the user's, `mine.py:rule(keep=3)` (fedzo.aggregation.own).
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.aggregation.bucketing import bucketing
from fedzo.aggregation.caf import caf
from fedzo.aggregation.centered_clipping import centered_clipping
from fedzo.aggregation.clipping import adaptive_clip, adaptively_clipped, clip, clipped
from fedzo.aggregation.geometric_median import geometric_median
from fedzo.aggregation.krum import krum, multi_krum, require_neighbors
from fedzo.aggregation.mean import mean
from fedzo.aggregation.mean_around_median import mean_around_median
from fedzo.aggregation.median import median
from fedzo.aggregation.minimum_diameter import minimum_diameter
from fedzo.aggregation.nearest_neighbors import nearest_neighbor_average, nearest_neighbor_mixing
from fedzo.aggregation.own import own_stage
from fedzo.aggregation.rows import require_majority, trusted_rows
from fedzo.aggregation.smea import require_few_subsets, smea
from fedzo.aggregation.trimmed_mean import trimmed_mean
from fedzo.calls import Call, make_call, split_calls
from fedzo.catalog import AGGREGATOR_LINES, MIXER_LINES
from fedzo.config import Scalar, require, unknown_key
from fedzo.errors import ConfigError
from fedzo.randomness import stream
from fedzo.user_code import REFERENCE, is_reference, stamp

_AGGREGATORS: Mapping[str, Callable[..., Tensor]] = {
    "mean": mean,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "geometric_median": geometric_median,
    "krum": krum,
    "multi_krum": multi_krum,
    "centered_clipping": centered_clipping,
    "mean_around_median": mean_around_median,
    "minimum_diameter": minimum_diameter,
    "smea": smea,
    "caf": caf,
    "nearest_neighbor_average": nearest_neighbor_average,
    "clip": clip,
    "adaptive_clip": adaptive_clip,
}
AGGREGATORS = {name: (_AGGREGATORS[name], line) for name, line in AGGREGATOR_LINES.items()}
"""Rules [n, d] -> [d] by name, with a line about each."""

_MIXERS: Mapping[str, Callable[..., Tensor]] = {
    "nearest_neighbor_mixing": nearest_neighbor_mixing,
    "bucketing": bucketing,
    "clip": clipped,
    "adaptive_clip": adaptively_clipped,
}
MIXERS = {name: (_MIXERS[name], line) for name, line in MIXER_LINES.items()}
"""What may stand before a rule: [n, d] -> [m, d]."""

_GIVEN = ("vectors", "num_byzantine", "generator", "start", "weights")
_LEAVING_OUT = ("clip", "adaptive_clip")
"""Mixers that hand on finite rows alone, among which are fewer liars."""
_TAMING = ("nearest_neighbor_mixing", "clip", "adaptive_clip")


@dataclass(frozen=True, slots=True)
class Aggregator:
    """A composition of rules; as a text, see the module."""

    text: str
    stages: tuple[Call, ...]

    def require(self, num_clients: int, num_byzantine: int) -> None:
        """Raise ConfigError where the rules cannot withstand so many of so many clients."""
        require_majority(num_clients, num_byzantine)
        tame = False
        for stage in self.stages:
            if stage.name == "bucketing":
                num_clients = -(-num_clients // int(stage.options.get("size", 2)))
            require_majority(num_clients, num_byzantine)
            if "neighbors" in stage.options:
                require_neighbors(num_clients, num_byzantine, stage.options["neighbors"])  # type: ignore[arg-type]
            _require_within(stage, num_clients, num_byzantine)
            tame = tame or stage.name in _TAMING
        if self.stages[-1].name == "mean" and num_byzantine and not tame:
            raise ConfigError(
                f"num_byzantine={num_byzantine} must be 0 for aggregator={self.text!r}: a mean"
                " withstands nobody; use trimmed_mean or another robust rule"
            )

    def __call__(
        self,
        vectors: Float[Tensor, "n d"],
        *,
        num_byzantine: int,
        generator: np.random.Generator,
        start: Float[Tensor, " d"] | None = None,
    ) -> Float[Tensor, " d"]:
        """Return the aggregate; `start` is the last one, for rules that learn from history."""
        self.require(len(vectors), num_byzantine)
        left = num_byzantine
        for stage in self.stages:
            given = {"generator": generator, "start": start, "num_byzantine": left}
            if stage.name == "mean":
                given["num_byzantine"] = 0
            known = {name: value for name, value in given.items() if _takes(stage, name)}
            if stage.name in _LEAVING_OUT:
                left = trusted_rows(vectors, left)[1]
            vectors = stage.function(vectors, **known, **stage.options)
        return vectors

    @property
    def learns(self) -> bool:
        """Whether a rule among these starts from the last result."""
        return any(_takes(stage, "start") for stage in self.stages)

    @property
    def is_mean(self) -> bool:
        """Whether this is the plain mean, which may be weighted."""
        return [stage.name for stage in self.stages] == ["mean"]


def parse_aggregator(text: str) -> Aggregator:
    """Return the composition that a text names.

    Raises ConfigError for what is no such text, unknown rules and options, and a last stage that
    does not make one vector.
    """
    files = [each.rpartition(":")[0] for each in REFERENCE.findall(text)]
    return _parsed(text, tuple(stamp(file) for file in files))


@lru_cache(maxsize=64)
def _parsed(text: str, _stamps: tuple[str, ...]) -> Aggregator:
    """Return the composition; what files of the user's said when it was made is part of the key."""
    try:
        parts = split_calls(text)
    except ValueError as error:
        raise ConfigError(
            f"aggregator={text!r} is not a rule or rules joined by |; write for example"
            " nearest_neighbor_mixing | trimmed_mean or centered_clipping(radius=2.0)"
        ) from error
    last = len(parts) - 1
    stages = [_stage(name, options, i == last) for i, (name, options) in enumerate(parts)]
    return Aggregator(text, tuple(stages))


def _stage(name: str, options: Mapping[str, Scalar], last: bool) -> Call:
    name = {"nnm": "nearest_neighbor_mixing"}.get(name, name)
    if is_reference(name):
        return own_stage(name, options, last=last, given=_GIVEN)
    table = AGGREGATORS if last else MIXERS
    if name not in table:
        raise _misplaced(name, last)
    stage = make_call(name, options, table[name][0], _GIVEN)
    random = {"generator": stream(0, "try out")} if _takes(stage, "generator") else {}
    try:
        stage.function(torch.arange(256.0).unsqueeze(1), **random, **stage.options)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    return stage


def _require_within(stage: Call, num_clients: int, num_byzantine: int) -> None:
    """Raise ConfigError for options that so few vectors cannot fulfil, or too many subsets."""
    if stage.name == "smea":
        require_few_subsets(num_clients, num_byzantine)
    for option, most in (("num_selected", num_clients), ("own", num_clients - 1)):
        value = stage.options.get(option, 0)
        require(int(value) <= most, f"{stage.name}.{option}", value, f"at most {most} here")


def _takes(stage: Call, name: str) -> bool:
    """Return whether a rule has this parameter."""
    return name in _parameters(stage.function)


@lru_cache(maxsize=64)
def _parameters(function: Callable[..., Tensor]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _misplaced(name: str, last: bool) -> ConfigError:
    if last and name in MIXERS:
        return ConfigError(
            f"{name} returns vectors, not one: add a rule after it, such as {name} | trimmed_mean"
        )
    if not last and name in AGGREGATORS:
        return ConfigError(
            f"{name} returns one vector, so it must be the last; before it may stand"
            f" {', '.join(MIXERS)}"
        )
    return unknown_key(name, {*AGGREGATORS, *MIXERS}, what="aggregator")

"""Settings of a fleet: how fast its devices and links are, and how often they are away.

Presets hold medians of links in bytes a second, the standard deviation of their logarithm, the
round trip, and the seconds that a device of middling speed takes for one example. Where they come
from:

    mobile     61.5 Mbit/s down (Ookla, median, November 2024), 28 ms (November 2022), 11.2 Mbit/s
               up (mean, September 2020); the spread is assumed
    fedscale   median 6.1 Mbit/s both ways, 26 % below 3: the 500,000 devices of FedScale (Lai et
               al., ICML 2022) as a third party has read them; the round trip is assumed
    5g         166 and 21 Mbit/s (Ookla, Q3 2021); spread and round trip are assumed
    silo       1 Gbit/s and 1 ms an example, assumed
    nb-iot     peak rates of 3GPP release 13, round trip 1.6 s, all of it from memory

Seconds an example of all but silo: median 13.6 ms, log-normal with deviation 0.6, as FedScale's
simulator has it. A gradient counts as three queries there, which is what `gradient_s=0` means.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from fedzo.config import check_types, require, require_nonnegative
from fedzo.used_with import UsedWith, above, one_of, other_than

Preset = Literal["none", "mobile", "fedscale", "5g", "silo", "nb-iot", "file"]


@dataclass(frozen=True, slots=True)
class Links:
    """Medians in bytes/s, deviation of their logarithm, round trip and an example in seconds."""

    down: float
    up: float
    spread: float
    rtt_s: float
    example_s: float = 0.0136


PRESETS: Mapping[str, Links] = {
    "mobile": Links(7.7e6, 1.4e6, 1.0, 0.03),
    "fedscale": Links(7.6e5, 7.6e5, 1.1, 0.05),
    "5g": Links(2.1e7, 2.6e6, 1.0, 0.02),
    "silo": Links(1.25e8, 1.25e8, 0.2, 0.005, 0.001),
    "nb-iot": Links(3.2e3, 7.8e3, 0.5, 1.6),
}
GRADIENT_QUERIES = 3
"""A gradient takes as long as so many queries, where nothing else is said."""
_OF_PRESET = other_than("preset", "none")
_DRAWN = other_than("preset", "none", "file")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """Settings of the virtual clock; without a preset there is none.

    preset: where medians of links and of the time for an example come from; file: a CSV with the
    columns client, query_s, down and up (seconds, bytes/s) instead. query_s: seconds that one query
    takes on a device of middling speed; 0 prices queries by their examples. gradient_s: of one
    gradient, 0 is three queries. example_s, down, up, rtt_s, link_spread: instead of the preset's;
    -1 is the preset's. speed_spread: deviation of the logarithm of a device's speed; jitter: the
    same of each job. correlation: of the slowness of a device with the number of its examples.
    drop_out: probability that an answer is lost after all work. stragglers: probability that a
    device becomes slow in a round, by straggler_factor, until it recovers with the probability
    recovery (Gilbert-Elliott). online: probability that a device can be reached at its best hour;
    diurnal: how far that falls and rises in a day, from 0 to 1.
    """

    preset: Preset = "none"
    file: str = ""
    query_s: float = 0.0
    gradient_s: float = 0.0
    example_s: float = -1.0
    down: float = -1.0
    up: float = -1.0
    rtt_s: float = -1.0
    link_spread: float = -1.0
    speed_spread: float = 0.6
    jitter: float = 0.1
    correlation: float = 0.0
    drop_out: float = 0.0
    stragglers: float = 0.0
    recovery: float = 0.6
    straggler_factor: float = 5.0
    online: float = 1.0
    diurnal: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "file": one_of("preset", "file"),
        "example_s": (_DRAWN, one_of("query_s", 0.0)),
        **dict.fromkeys(
            ("query_s", "down", "up", "link_spread", "speed_spread", "correlation"),
            _DRAWN,
        ),
        **dict.fromkeys(
            ("gradient_s", "rtt_s", "jitter", "drop_out", "stragglers", "online", "diurnal"),
            _OF_PRESET,
        ),
        **dict.fromkeys(("recovery", "straggler_factor"), above("stragglers", 0)),
    }

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("query_s", "gradient_s", "jitter"):
            require_nonnegative(name, getattr(self, name))
        for name in ("example_s", "rtt_s"):
            value = getattr(self, name)
            require(value == -1 or 0 <= value < math.inf, name, value, "-1 (preset's), 0 or more")
        spread = self.speed_spread
        require(0 <= spread <= 10, "speed_spread", spread, "from 0 to 10, as of a logarithm")
        spread = self.link_spread
        told = "-1 (preset's), or from 0 to 10, as of a logarithm"
        require(spread == -1 or 0 <= spread <= 10, "link_spread", spread, told)
        for name in ("down", "up"):
            value = getattr(self, name)
            require(value == -1 or 0 < value < math.inf, name, value, "-1 (preset's), or positive")
        for name in ("drop_out", "stragglers", "recovery", "diurnal"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, value, "from 0 to 1")
        require(0 < self.online <= 1, "online", self.online, "above 0, at most 1")
        require(-1 <= self.correlation <= 1, "correlation", self.correlation, "from -1 to 1")
        slow = self.straggler_factor
        require(1 <= slow < math.inf, "straggler_factor", slow, "at least 1")
        require(self.stragglers == 0 or self.recovery > 0, "recovery", self.recovery, "above 0")
        named = self.preset == "file"
        require(named == bool(self.file), "file", self.file, "a CSV file, with preset=file alone")

    @property
    def any(self) -> bool:
        """Whether there is a virtual clock."""
        return self.preset != "none"

    @property
    def loses(self) -> bool:
        """Whether answers can be lost or clients away, so that a run depends on its fleet."""
        return self.drop_out > 0 or self.online < 1 or self.diurnal > 0

    @property
    def links(self) -> Links:
        """The preset with what was said instead; for preset=file, only what a file leaves out."""
        usual = PRESETS.get(self.preset, Links(math.nan, math.nan, 0.0, 0.0, 0.0))
        given = {
            "down": self.down,
            "up": self.up,
            "spread": self.link_spread,
            "rtt_s": self.rtt_s,
            "example_s": self.example_s,
        }
        return replace(usual, **{name: value for name, value in given.items() if value != -1})

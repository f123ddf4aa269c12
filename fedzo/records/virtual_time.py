"""Seconds of a virtual clock, and where they went."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualTime:
    """Seconds that a run would have taken so far.

    down, compute, up: of a mean client that counted; waiting: of this client for the slowest of an
    exchange, or for those that never came; the four add up to `seconds`. wasted: jobs whose work
    was thrown away, because they came too late or got lost.
    """

    seconds: float = 0.0
    down: float = 0.0
    compute: float = 0.0
    up: float = 0.0
    waiting: float = 0.0
    wasted: int = 0

    def __add__(self, other: "VirtualTime") -> "VirtualTime":
        return VirtualTime(
            seconds=self.seconds + other.seconds,
            down=self.down + other.down,
            compute=self.compute + other.compute,
            up=self.up + other.up,
            waiting=self.waiting + other.waiting,
            wasted=self.wasted + other.wasted,
        )

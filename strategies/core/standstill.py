"""A watch over the first rounds: whether x moves by anything that could ever matter.

After round k (at most 3) the pace so far tells how far x comes in all rounds. It stands still where

    |x_k - x_0| = 0, or
    |x_k - x_0| (rounds / k) < reach  and  |F_k - F_0| (rounds / k) < share |F_0|

where x_k and F_k are those of the watched rounds that have come farthest, with reach = mu and share
= 1/10 for methods that ask around x: within mu they cannot tell one x from another; for others
reach = 1e-4 max |x| and share = 1/100. A round of Adam's steps is slow where it is shorter than one
step, local_lr. Slow runs get on in one of the two; runs that have converged do so after their first
rounds, which are not watched. Lengths are largest coordinates.
"""

import warnings
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from fedzo.errors import FedzoWarning
from strategies.core.abilities import can
from strategies.core.outcome import Snapshot
from strategies.core.rounds import IsInPlace

WARNING = "x (has not moved|moves so little)"
"""How the warning begins, for who expects it: a sweep tries steps that are too small."""
_WATCHED = 3
_TINY, _HUGE = 1e-4, 1e100


@dataclass(slots=True, kw_only=True)
class Standstill:
    """A callback that warns once in a run; it is told what is known of the method's steps.

    mu: smoothing radius, 0 where there is none. adam_lr: step of the clients' Adam, 0 where they
    use none. rate: the setting of the step. patience: rounds after which it looks, or the last
    where there are fewer. An x in place is not watched.
    """

    num_rounds: int
    mu: float = 0.0
    adam_lr: float = 0.0
    rate: str = "strategy.local_lr"
    patience: int = _WATCHED
    _start: Float[Tensor, " d"] | None = field(default=None, init=False)
    _first: float | None = field(default=None, init=False)
    _heard: bool = field(default=False, init=False)
    _warned: bool = field(default=False, init=False)
    _moved: float = field(default=0.0, init=False)
    _change: float = field(default=0.0, init=False)

    def __call__(self, snapshot: Snapshot) -> None:
        record = snapshot.record
        if can(snapshot.state, IsInPlace):
            return
        if record.round_index == 0:
            self._heard = False
            self._start, self._first = snapshot.state.x.clone(), record.value
            self._moved = self._change = 0.0
        elif record.clients_answered:
            self._heard = True
        if self._start is not None and 0 < record.round_index <= self.patience:
            self._follow(snapshot.state.x, record.value)
        watched = record.round_index == min(self.patience, self.num_rounds) > 0
        asked = record.queries + record.gradients > 0
        if self._start is None or self._warned or not watched or not asked or snapshot.stop:
            return
        text = self._complaint(snapshot.state.x, record.value, record.round_index)
        if text:
            self._warned = True
            warnings.warn(text, FedzoWarning, stacklevel=2)

    def _follow(self, x: Float[Tensor, " d"], value: float | None) -> None:
        """Note how far x and F have come."""
        assert self._start is not None
        self._moved = max(self._moved, float((x - self._start).abs().max()))
        if value is not None and self._first is not None:
            self._change = max(self._change, abs(value - self._first))

    def _complaint(self, x: Float[Tensor, " d"], value: float | None, rounds: int) -> str:
        """Say why x will not get anywhere; nothing where it will."""
        moved, known = self._moved, value is not None and self._first is not None
        first = (self._first or 0.0) if known else 0.0
        times = self.num_rounds / rounds
        if moved == 0:
            if not self._heard:  # which is told by itself
                return ""
            rest = f"{self._at(known, first)}: {self._cause(first)}"
            return f"x has not moved in {rounds} round{'s' * (rounds > 1)}{rest}"
        change = self._change * times
        share = 0.1 if self.mu or self.adam_lr else 0.01
        still = change < share * abs(first) if known else moved * times < 1e-4 * self._reach(x)
        slow = moved * times < self._reach(x) or (known and moved / rounds < self.adam_lr)
        if not (still and slow):
            return ""
        return (
            f"x moves so little that all {self.num_rounds} rounds take it {moved * times:.1g} far"
            f"{self._at(known, first)}: {self._cause(first)}"
        )

    def _reach(self, x: Float[Tensor, " d"]) -> float:
        """Return the distance below which a whole run has got nowhere."""
        assert self._start is not None
        longest = max(float(self._start.abs().max()), float(x.abs().max()))
        return self.mu or 1e-4 * (longest if bool(self._start.any()) else max(1.0, longest))

    def _at(self, known: bool, first: float) -> str:
        return f" (F starts at {first:.3g})" if known else ""

    def _cause(self, first: float) -> str:
        """Return the likely reason and the remedy."""
        if abs(first) > _HUGE:
            return "squares of its slopes overflow; divide the objective by its size at the start"
        kind = "" if self._start is None else str(self._start.dtype).removeprefix("torch.")
        flat = f"client.mu={self.mu:g} too small, " if self.mu else ""
        small = "the objective's units too small, " if 0 < abs(first) < _TINY else ""
        remedy = "multiply the objective by a constant or raise " if small else "raise "
        settings = f"client.mu or {self.rate}" if self.mu else self.rate
        return (
            f"{small}{flat}the step too small for x in {kind}, or the objective flat there;"
            f" {remedy}{settings}, unless x is a minimum"
        )

"""A log of coefficients, replayed into modules: x is where they are, and nowhere else.

    x_0: the parameters that the module was made with
    x_{t+1} = x_t + sum_{i < m} log[t m + i] u_{t m + i}                        a log [k]
    x_{t+1} = x_t + sum_{i < m} log[t, 1 + i] u_{j m + i},    j = log[t, 0]     numbered [r, 1 + m]

A numbered log says of each row which step's directions it goes along, for those that come late;
numbers are exact below 2^24.

Of K candidates (Qin et al., "FedKSeed", ICML 2024), u_j is number r_j, a keyed draw from 0, ...,
K - 1; they span at most K dimensions, and shorten nothing here, since the key follows from j.

Every step is added in one go, so whoever replays a log from the same start has the same bits. A
module remembers which log it holds and how much of it: a longer one goes on from there, and several
clients that share a module move it once. Memory: that of fedzo.estimation.place.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from fedzo.errors import ConfigError
from fedzo.estimation.keys import Key, Law
from fedzo.estimation.place import Term, add_terms_
from fedzo.estimation.snapshots import snapshots_of
from fedzo.objectives.modules import trained_parameters

Log = Float32[Tensor, "log *row"]
"""Coefficients [k], or, numbered, rows [r, 1 + m]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The stream of directions that belongs to a run and problem, and how many make a step."""

    seed: int
    problem: int = 0
    law: Law = "rademacher"
    num_directions: int = 1
    candidates: int = 0

    def keys(self, step: int) -> list[Key]:
        """Return the keys of the directions of a step."""
        stream = Key(seed=self.seed, parts=("in place", self.problem), law=self.law)
        first = step * self.num_directions
        numbers = range(first, first + self.num_directions)
        if not self.candidates:
            return [stream.at(number) for number in numbers]
        draws = Key(seed=self.seed, parts=("candidates", self.problem))
        words = draws.words(first, first + self.num_directions).tolist()
        return [stream.at(word % self.candidates) for word in words]

    def steps(self, log: Log, done: int = 0) -> Iterator[list[Term]]:
        """Yield the terms of each step of a log after its first numbers, or rows."""
        if log.dim() == 2:
            for number, *told in log[done:].tolist():
                yield list(zip(self.keys(int(number)), told, strict=True))
            return
        m = self.num_directions
        for first in range(done, len(log), m):
            yield list(zip(self.keys(first // m), log[first : first + m].tolist(), strict=True))

    def bring_(self, module: nn.Module, log: Log) -> None:
        """Move a module's trained parameters to where the log leads.

        Raises ConfigError for a module that holds another log.
        """
        snapshots = snapshots_of(module)
        fresh = log[:0]
        if snapshots and module not in _HELD:
            fresh = snapshots.read_(module, repr(self), log)
        replay, held = _HELD.get(module, (self, fresh))
        if replay != self or not torch.equal(log[: len(held)], held):
            raise ConfigError(
                f"the parameters of the {type(module).__name__} have been moved by another run"
                f" (seed {replay.seed}, a log of {len(held)}), so this one would not start where"
                " they began; make the module anew for each run, in the function that makes the"
                " objectives"
            )
        place = trained_parameters(module)
        each = self.num_directions if log.dim() == 1 else 1
        written = snapshots.last(len(log) // each) if snapshots else 0
        for number, terms in enumerate(self.steps(log, len(held)), len(held) // each + 1):
            add_terms_(place, terms)
            _HELD[module] = (self, log[: number * each])
            if snapshots and number == written:
                snapshots.write(module, repr(self), log[: number * each])

    def back_to(self, module: nn.Module, log: Log) -> list[Term]:
        """Bring a module to where the log leads; return what leads back where it is further on.

        A question about an x of some steps ago may come late; the terms are to be asked beside, and
        give that x but for rounding.
        """
        replay, held = _HELD.get(module, (self, log[:0]))
        if replay == self and len(held) > len(log) and torch.equal(held[: len(log)], log):
            return [(u, -told) for terms in self.steps(held, len(log)) for u, told in terms]
        self.bring_(module, log)
        return []


_HELD: WeakKeyDictionary[nn.Module, tuple[Replay, Log]] = WeakKeyDictionary()
"""The log that each module's parameters hold."""

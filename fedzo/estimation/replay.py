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
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from fedzo.errors import ConfigError
from fedzo.estimation.keys import Key, Law
from fedzo.estimation.place import Term, add_terms_
from fedzo.estimation.snapshots import snapshots_of
from fedzo.objectives.modules import trained_parameters
from fedzo.records.tensor_file import digest_of

Log = Float32[Tensor, "log *row"]
"""Coefficients [k], or, numbered, rows [r, 1 + m]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The stream of directions that belongs to a run and problem, and how many make a step.

    start: a digest of the parameters where the log begins (`start_of`), where that is known.
    """

    seed: int
    problem: int = 0
    law: Law = "rademacher"
    num_directions: int = 1
    candidates: int = 0
    start: str = field(default="", repr=False, compare=False)

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

        Raises ConfigError for a module that holds another log, or begins elsewhere.
        """
        if self.start and start_of(module) not in (self.start, ""):
            raise ConfigError(
                f"the {type(module).__name__} does not begin where the run began: it has other"
                " trained parameters, or other numbers in them; make all modules by the same code"
                " from the same seed of torch, set before the layers, or read one file"
            )
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


def start_of(module: nn.Module) -> str:
    """Return a digest of the trained parameters that a module was made with, moved since or not.

    Nothing for one that has only shapes, or that was moved before anybody asked.
    """
    place = trained_parameters(module)
    known = _STARTS.get(module)
    if any(p.is_meta for p in place) or (module in _HELD and known is None):
        return ""
    writes = [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in place]
    if known is None or (module not in _HELD and known[0] != writes):
        known = writes, digest_of({f"{i:06}": p.detach().cpu() for i, p in enumerate(place)}, "")
        _STARTS[module] = known
    return known[1]


_HELD: WeakKeyDictionary[nn.Module, tuple[Replay, Log]] = WeakKeyDictionary()
"""The log that each module's parameters hold."""
_STARTS: WeakKeyDictionary[nn.Module, tuple[object, str]] = WeakKeyDictionary()
"""What `start_of` has found, and how often torch had written to the parameters by then."""

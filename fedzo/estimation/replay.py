"""A log of coefficients, replayed into modules: x is where they are, and nowhere else.

    x_0: the parameters that the module was made with
    x_{t+1} = x_t + sum_{i < m} log[t m + i] u_{t m + i}

Of K candidates (Qin et al., "FedKSeed", ICML 2024), u_j is number r_j, a keyed draw from 0, ...,
K - 1; they span at most K dimensions, and shorten nothing here, since the key follows from j.

Every step is added in one go, so whoever replays a log from the same start has the same bits. A
module remembers which log it holds and how much of it: a longer one goes on from there, and several
clients that share a module move it once. Memory: that of fedzo.estimation.place.
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from fedzo.errors import ConfigError
from fedzo.estimation.keys import Key, Law
from fedzo.estimation.place import add_terms_
from fedzo.objectives.modules import trained_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The stream of directions that belongs to a run and problem, and how many make a step."""

    seed: int
    problem: int = 0
    law: Law = "rademacher"
    num_directions: int = 1
    candidates: int = 0

    def keys(self, first: int) -> list[Key]:
        """Return the keys of a step whose first direction has this number."""
        stream = Key(seed=self.seed, parts=("in place", self.problem), law=self.law)
        numbers = range(first, first + self.num_directions)
        if not self.candidates:
            return [stream.at(number) for number in numbers]
        draws = Key(seed=self.seed, parts=("candidates", self.problem))
        words = draws.words(first, first + self.num_directions).tolist()
        return [stream.at(word % self.candidates) for word in words]

    def bring_(self, module: nn.Module, log: Float32[Tensor, " k"]) -> None:
        """Move a module's trained parameters to where the log leads.

        Raises ConfigError for a module that holds another log.
        """
        replay, held = _HELD.get(module, (self, log[:0]))
        if replay != self or not torch.equal(log[: len(held)], held):
            raise ConfigError(
                f"the parameters of the {type(module).__name__} have been moved by another run"
                f" (seed {replay.seed}, {len(held)} directions), so this one would not start where"
                " they began; make the module anew for each run, in the function that makes the"
                " objectives"
            )
        place = trained_parameters(module)
        for first in range(len(held), len(log), self.num_directions):
            step = log[first : first + self.num_directions].tolist()
            add_terms_(place, list(zip(self.keys(first), step, strict=True)))
            _HELD[module] = (self, log[: first + self.num_directions])


_HELD: WeakKeyDictionary[nn.Module, tuple[Replay, Float32[Tensor, " k"]]] = WeakKeyDictionary()
"""The log that each module's parameters hold."""

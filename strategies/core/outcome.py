"""The outer limits of a run, what it leaves after a round, and how it ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedzo.config import check_types, require
from fedzo.records.history import RoundRecord
from strategies.core.spending import Spent

StopReason = Literal["rounds", "budget", "privacy", "solved", "callback", "failed"]
"""Why a run has ended; "failed" says it of what there was when it could not go on."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a run after a round; enough, with the clients' states, to go on from there.

    heard: whether any client has answered in any round; failed: rounds in a row that have failed.
    """

    record: RoundRecord
    state: Any
    stop: StopReason | None = None
    heard: bool = True
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: as its last snapshot, with all records (of this call)."""

    last: Snapshot
    records: Sequence[RoundRecord]

    @property
    def state(self) -> Any:
        """The last state."""
        return self.last.state

    @property
    def stop(self) -> StopReason:
        """Why it stopped."""
        assert self.last.stop is not None
        return self.last.stop


Callback = Callable[[Snapshot], bool | None]
"""Called after every round, and once before the first; returning True ends the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The outer limits of a run; query_budget counts all clients together, None is no limit.

    num_problems: that are put to the same clients in this run; spent: what the earlier ones have
    released, where it is counted. public_data: whether a private method's x may be judged although
    evaluate_every=0. liars: clients that are known to the simulation, not to the strategy, as
    malicious; what they say of x or of their own models is not judged. None where nobody knows who
    lies, as in a deployment: then F is judged without the num_byzantine most extreme answers at
    either end.
    """

    num_clients: int
    num_rounds: int
    seed: int = 0
    query_budget: int | None = None
    num_problems: int = 1
    spent: Spent | None = None
    public_data: bool = True
    liars: frozenset[int] | None = frozenset()

    def __post_init__(self) -> None:
        check_types(self)
        require(self.num_clients >= 1, "num_clients", self.num_clients, "at least 1")
        require(self.num_rounds >= 0, "num_rounds", self.num_rounds, "0 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or more")

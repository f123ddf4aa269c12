"""What a client remembers: its state after each exchange, in the Context and, if wanted, on disk.

States are kept by the exchange that left them, those of the current round and the newest of the
rounds before. So a message that comes twice is answered the same and changes nothing, and a run
that is resumed finds the state that belonged to its checkpoint, or hears that it is gone.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fedzo.errors import CheckpointError, ConfigError, RunError
from fedzo.protocol.exchange import ClientState, Moment
from fedzo.protocol.messages import decode_tensors, encode_tensors
from fedzo.records.storage import replacing, storing
from fedzo.records.tensor_file import read_tensors, write_tensors

STATES, FACTS = "fedzo-states", "fedzo-facts"


@dataclass(frozen=True, slots=True)
class States:
    """A client's states in one run, by the moment of the exchange that left them.

    attempt: of the server's process; a resumed run has another, and may go back in time, while an
    old message of the same attempt is a repetition. forgotten: the newest moment that is not kept.
    """

    run: str = ""
    attempt: str = ""
    by_moment: Mapping[Moment, ClientState] = field(default_factory=dict)
    forgotten: Moment | None = None

    def before(self, now: Moment) -> ClientState:
        """Return the newest state of this problem from before `now`, empty if there is none.

        Raises RunError when there was one and it is no longer kept.
        """
        earlier = max([moment for moment in self.by_moment if _precedes(moment, now)], default=None)
        lost = self.forgotten
        if lost and _precedes(lost, now) and (earlier is None or earlier < lost):
            raise RunError(
                f"the client no longer has its memory of round {now.round_index}: resume the run"
                " from a later checkpoint, or start it again"
            )
        return {} if earlier is None else self.by_moment[earlier]

    def after(self, now: Moment, attempt: str, state: ClientState) -> "States":
        """Return the states with one more; what can no longer be asked for is forgotten.

        A repetition of an old message changes nothing.
        """
        newest = max(self.by_moment, default=None)
        if newest and attempt == self.attempt and not newest < now:
            return self
        here = [moment for moment in self.by_moment if _precedes(moment, now)]
        old = [moment for moment in here if moment.round_index < now.round_index]
        this = [moment for moment in here if moment.round_index == now.round_index]
        kept = {m: self.by_moment[m] for m in here if m in this or m == max(old)}
        gone = [m for m in here if m not in kept] + ([self.forgotten] if self.forgotten else [])
        lost = max([moment for moment in gone if _precedes(moment, now)], default=None)
        return States(self.run, attempt, {**kept, now: state}, lost)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors under names that tell the moment."""
        return {
            f"{moment.token}/{name}": tensor
            for moment, state in self.by_moment.items()
            for name, tensor in state.items()
        }

    def facts(self) -> str:
        """Return all but the tensors, as JSON."""
        moments = [moment.parts for moment in self.by_moment]
        lost = self.forgotten.parts if self.forgotten else None
        return json.dumps([self.run, self.attempt, moments, lost])

    @staticmethod
    def of(facts: str, tensors: Mapping[str, Tensor]) -> "States":
        """Return the states that these facts and tensors describe."""
        run, attempt, moments, forgotten = json.loads(facts)
        found: dict[Moment, dict[str, Tensor]] = {Moment(*numbers): {} for numbers in moments}
        for key, tensor in tensors.items():
            when, _, name = key.partition("/")
            found[Moment(*map(int, when.split(".")))][name] = tensor
        return States(run, attempt, found, Moment(*forgotten) if forgotten else None)


def load_states(records: RecordDict, run: str, file: Path | None) -> States:
    """Return the states of a run from the Context's records, or else from the file.

    Raises ConfigError when the file is damaged.
    """
    held, arrays = records.get(FACTS), records.get(STATES)
    if isinstance(held, ConfigRecord) and isinstance(arrays, ArrayRecord):
        states = States.of(str(held["facts"]), decode_tensors(arrays))
        if states.run == run:
            return states
    if file is None or not file.exists():
        return States(run)
    try:
        tensors, facts = read_tensors(file)
        return States.of(facts, tensors)
    except (CheckpointError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the client's state {file} cannot be read ({error}); remove it to start afresh"
        ) from error


def save_states(records: RecordDict, states: States, file: Path | None) -> None:
    """Keep the states in the Context's records and, in one step, in the file."""
    tensors, facts = states.tensors(), states.facts()
    records[STATES], records[FACTS] = encode_tensors(tensors), ConfigRecord({"facts": facts})
    if file is None:
        return
    with storing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as fresh:
            write_tensors(fresh, tensors, facts)


def state_file(directory: str | Path, run: str, client_id: int) -> Path:
    """Return where a client keeps its states of a run.

    Raises ConfigError for a run name that is no plain name: it comes from the server.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", run):
        raise ConfigError(f"the run name {run!r:.80} may hold only letters, digits, - and _")
    return Path(directory) / (run or "run") / f"client-{client_id}.safetensors"


def _precedes(one: Moment, other: Moment) -> bool:
    """Return whether one moment is before another of the same problem."""
    return one.problem == other.problem and one < other

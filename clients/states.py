"""What a client remembers: its state after each exchange, in the Context and, if wanted, on disk.

States are kept by the exchange that left them, those of the current round and the newest of the
rounds before. So a message that comes twice is answered twice the same, and a run that is resumed
finds the state that belonged to its checkpoint.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from fedzo.exchange import ClientState
from fedzo.messages import decode_tensors, encode_tensors

STATES, RUN = "fedzo-states", "fedzo-run"
_JUDGED = 1 << 30
"""F is judged after all exchanges of a round, under the exchange index -1."""

Moment = tuple[int, int, int]
"""When in a run: problem, round, exchange."""


def moment_of(config: Mapping[str, Scalar]) -> Moment:
    """Return the moment of the exchange with this config."""
    problem, round_index, exchange = (
        int(config.get(name, 0)) for name in ("problem", "round_index", "exchange_index")
    )
    return problem, round_index, exchange if exchange >= 0 else _JUDGED


@dataclass(frozen=True, slots=True)
class States:
    """A client's states in one run, by the moment of the exchange that left them."""

    run: str = ""
    by_moment: Mapping[Moment, ClientState] = field(default_factory=dict)

    def before(self, now: Moment) -> ClientState:
        """Return the newest state of this problem from before `now`, empty if there is none."""
        earlier = [moment for moment in self.by_moment if moment < now and moment[0] == now[0]]
        return self.by_moment[max(earlier)] if earlier else {}

    def after(self, now: Moment, state: ClientState) -> "States":
        """Return the states with one more; what can no longer be asked for is forgotten."""
        here = [m for m in self.by_moment if m < now and m[0] == now[0]]
        old = [m for m in here if m[1] < now[1]]
        kept = {m: self.by_moment[m] for m in here if m[1] == now[1] or m == max(old)}
        return States(self.run, {**kept, now: state})

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors under names that tell the moment."""
        return {
            "/".join((".".join(map(str, moment)), name)): tensor
            for moment, state in self.by_moment.items()
            for name, tensor in state.items()
        }

    @staticmethod
    def of(run: str, tensors: Mapping[str, Tensor]) -> "States":
        """Return the states whose tensors these are."""
        found: dict[Moment, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            moment, _, name = key.partition("/")
            problem, round_index, exchange = map(int, moment.split("."))
            found.setdefault((problem, round_index, exchange), {})[name] = tensor
        return States(run, found)


def load_states(records: RecordDict, run: str, file: Path | None) -> States:
    """Return the states of a run from the Context's records, or else from the file."""
    held, arrays = records.get(RUN), records.get(STATES)
    if isinstance(held, ConfigRecord) and isinstance(arrays, ArrayRecord) and held["name"] == run:
        return States.of(run, decode_tensors(arrays))
    if file is None or not file.exists():
        return States(run)
    try:
        return States.of(run, load_file(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigError(
            f"the client's state {file} cannot be read ({error}); remove it to start afresh"
        ) from error


def save_states(records: RecordDict, states: States, file: Path | None) -> None:
    """Keep the states in the Context's records and, in one step, in the file."""
    tensors = states.tensors()
    records[STATES] = encode_tensors(tensors)
    records[RUN] = ConfigRecord({"name": states.run})
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, fresh)
    fresh.replace(file)


def state_file(directory: str | Path, run: str, client_id: int) -> Path:
    """Return where a client keeps its states of a run.

    Raises ConfigError for a run name that is no plain name: it comes from the server.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", run):
        raise ConfigError(f"the run name {run!r:.80} may hold only letters, digits, - and _")
    return Path(directory) / (run or "run") / f"client-{client_id}.safetensors"

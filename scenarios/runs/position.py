"""Where a run stands, as its checkpoint and history tell it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedzo.errors import CheckpointError
from fedzo.privacy.accountant import Ledger
from fedzo.protocol.exchange import ClientState
from fedzo.records.checkpoint import (
    Checkpoint,
    flatten_state,
    pack_client_states,
    restore_state,
    unpack_client_states,
)
from fedzo.records.history import RoundRecord, read_history
from scenarios.runs.best import Best, Solution, pack_bests, unpack_bests
from strategies.core.driver import Snapshot, StopReason
from strategies.core.spending import Spent

SPENT = "spent"


@dataclass(frozen=True, slots=True)
class Found:
    """What a run has found: x of every problem that has ended, the best of all that have begun.

    stops: why each problem has ended, of checkpoints that say so. start: a digest of the modules'
    parameters before the first round, where they are moved in place.
    """

    solutions: Sequence[Solution] = ()
    bests: Sequence[Best | None] = ()
    stops: Sequence[StopReason] = ()
    start: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: its records, the solved problems, the snapshot inside the current.

    best: of the current problem. spent: what the solved problems have released, where that is
    counted.
    """

    records: Sequence[RoundRecord] = ()
    found: Found = Found()
    snapshot: Snapshot | None = None
    client_states: Mapping[int, ClientState] = field(default_factory=dict)
    run_name: str = ""
    spent: Spent | None = None
    best: Best | None = None


def within(snapshot: Snapshot, states: Mapping[int, ClientState]) -> Checkpoint:
    """Return what a checkpoint inside a problem holds."""
    part = flatten_state(snapshot.state)
    told = {"stop": snapshot.stop, "heard": snapshot.heard, "failed": snapshot.failed}
    facts = {**part.facts, "within": True, **told}
    return Checkpoint({**part.tensors, **pack_client_states(states)}, facts)


def ended(
    last: Snapshot, spent: Spent | None, states: Mapping[int, ClientState] | None
) -> Checkpoint:
    """Return what a checkpoint at the end of a problem holds.

    states: of the clients, after the last problem of a run, which can go on from there.
    """
    part = flatten_state(spent, SPENT) if spent else Checkpoint({}, {})
    kept = Checkpoint({}, {}) if states is None else within(last, states)
    told = {
        "within": False,
        "stop": last.stop,
        "kept": states is not None,
        "judged": last.record.value is not None,
    }
    return Checkpoint({**kept.tensors, **part.tensors}, {**kept.facts, **part.facts, **told})


def with_found(
    part: Checkpoint, found: Found, records: int, run_name: str, rounds: int
) -> Checkpoint:
    """Return a checkpoint with what was found, and how many records belong to it."""
    bests = pack_bests(found.bests)
    named = {f"solution.{k}": x for k, x in enumerate(found.solutions)}
    counts = {"num_records": records, "num_solutions": len(found.solutions), "num_rounds": rounds}
    told = {"stops": list(found.stops), "start": found.start}
    return Checkpoint(
        {**part.tensors, **named, **bests.tensors},
        {**part.facts, **counts, **told, **bests.facts, "run_name": run_name},
    )


def records_of(checkpoint: Checkpoint, history: Path) -> list[RoundRecord]:
    """Return the records that a checkpoint speaks of; raises CheckpointError where some lack."""
    count = int(checkpoint.facts["num_records"])
    records = read_history(history)[:count] if history.exists() else []
    if len(records) < count:
        raise CheckpointError(
            f"{history} holds {len(records)} records and the checkpoint speaks of {count}; restore"
            " the file, or start again in an empty directory"
        )
    return records


def found_in(checkpoint: Checkpoint, records: Sequence[RoundRecord]) -> Found:
    """Return what a run had found by its checkpoint."""
    tensors, facts = checkpoint.tensors, checkpoint.facts
    solutions = [tensors[f"solution.{k}"] for k in range(facts["num_solutions"])]
    bests = unpack_bests(tensors, facts, records)
    return Found(solutions, bests, facts.get("stops", []), facts.get("start", ""))


def position_in(
    checkpoint: Checkpoint, records: Sequence[RoundRecord], empty_state: Any, num_rounds: int
) -> Position:
    """Return where a run stands that is to have so many rounds.

    One whose last problem had ended after fewer stands inside that problem. `empty_state` is any
    state of its strategy.
    """
    facts, found = checkpoint.facts, found_in(checkpoint, records)
    name = str(facts["run_name"])
    if not facts["within"] and not _goes_on(checkpoint, records, num_rounds):
        return Position(records, found, run_name=name, spent=spent_in(checkpoint))
    stop = facts["stop"] if facts["within"] else None
    heard, failed = facts.get("heard", True), facts.get("failed", 0)
    solutions = found.solutions if facts["within"] else found.solutions[:-1]
    before = len(solutions)
    return Position(
        records,
        Found(solutions, found.bests[:before], found.stops[:before], found.start),
        Snapshot(records[-1], restore_state(empty_state, checkpoint), stop, heard, failed),
        unpack_client_states(checkpoint.tensors),
        name,
        best=found.bests[before],
    )


def _goes_on(checkpoint: Checkpoint, records: Sequence[RoundRecord], num_rounds: int) -> bool:
    """Return whether the last problem ended for its rounds alone, which are more now."""
    facts = checkpoint.facts
    return bool(
        facts.get("kept")
        and facts.get("stop") == "rounds"
        and records
        and records[-1].round_index < num_rounds
    )


def spent_in(checkpoint: Checkpoint) -> Spent | None:
    """Return what was spent by the end of a problem, or so far; None where nothing is counted."""
    for place in (SPENT, "state.privacy"):
        if any(name.startswith(f"{place}.") for name in checkpoint.facts):
            return restore_state(Spent(Ledger.empty()), checkpoint, place)
    return None

"""A client at work, and all of them as tensors for a checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedzo.protocol.exchange import ClientState, Replies


@dataclass(slots=True)
class Job:
    """One client at work: since when, until when, and what it says where that was computed.

    version: the round in which it was asked. parts: seconds down, at work and up. lost: whether the
    answer never comes; then `end` is when the server gives up.
    """

    number: int
    client: int
    version: int
    start: float
    end: float = math.inf
    parts: tuple[float, ...] = (0.0, 0.0, 0.0)
    lost: bool = False
    computed: bool = False
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    failure: str = ""

    @property
    def key(self) -> tuple[float, int]:
        """When it lands, and before which others that land then."""
        return self.end, self.number

    def hear(self, replies: Replies, place: int | None) -> None:
        """Take down what its client has said, at this place of the replies, None for nothing."""
        client = self.client
        self.computed, self.failure = True, replies.failures.get(client, "")
        self.counts = {n: of[client] for n, of in replies.counts.items() if client in of}
        if place is not None:
            self.tensors = {name: rows[place] for name, rows in replies.tensors.items()}


def to_tensors(jobs: Sequence[Job]) -> dict[str, Tensor]:
    """Return computed jobs as tensors, nothing for no job."""
    if not jobs:
        return {}
    told = [job for job in jobs if job.tensors]
    whole = [[j.number, j.client, j.version, j.lost, bool(j.tensors)] for j in jobs]
    real = [[job.start, job.end, *job.parts] for job in jobs]
    reasons = "\0".join(job.failure for job in jobs).encode()
    names = sorted({name for job in told for name in job.tensors})
    counted = sorted({name for job in jobs for name in job.counts})
    return {
        "whole": torch.tensor(whole, dtype=torch.int64),
        "real": torch.tensor(real, dtype=torch.float64),
        "reasons": torch.tensor(list(reasons), dtype=torch.uint8),
        **{f"{_TENSOR}{n}": torch.stack([job.tensors[n] for job in told]) for n in names},
        **{f"{_COUNT}{n}": torch.tensor([job.counts.get(n, -1) for job in jobs]) for n in counted},
    }


def from_tensors(state: ClientState) -> list[Job]:
    """Return the jobs that `to_tensors` was given."""
    if "whole" not in state:
        return []
    reasons = bytes(state["reasons"].tolist()).decode().split("\0")
    jobs, told = [], 0
    for i, (whole, real) in enumerate(
        zip(state["whole"].tolist(), state["real"].tolist(), strict=True)
    ):
        number, client, version, lost, answered = whole
        counts = {name: int(column[i]) for name, column in _named(state, _COUNT).items()}
        tensors = {n: rows[told] for n, rows in _named(state, _TENSOR).items()} if answered else {}
        told += answered
        job = Job(number, client, version, real[0], real[1], tuple(real[2:]), bool(lost), True)
        job.tensors = tensors
        job.counts = {name: count for name, count in counts.items() if count >= 0}
        job.failure = reasons[i]
        jobs.append(job)
    return jobs


_TENSOR, _COUNT = "tensor.", "count."


def _named(state: ClientState, prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}

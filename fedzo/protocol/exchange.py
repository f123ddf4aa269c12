"""What a strategy asks of clients, and what comes back.

An exchange is one question to some clients; its replies are stacked and sorted by client. Messages
are the wire form of the two (fedzo.protocol.messages) and exist only where there is a wire.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedzo.compression.compressor import Form
from fedzo.compression.scheme import Scheme
from fedzo.objectives.asking import OnFailure
from fedzo.protocol.packing import Down, part_name, view_names
from fedzo.protocol.question import Question
from fedzo.randomness import stream, streams

ClientState = Mapping[str, Tensor]
JUDGING, JUDGING_REST = -1, -2
"""The exchange indices under which x is judged, after all exchanges of a round, and under which
those are asked who had not judged it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When in a run: the key of all streams that an exchange draws from, and its place in order."""

    problem: int = 0
    round_index: int = 0
    exchange_index: int = 0

    def stream(self, seed: int, purpose: str, *more: int) -> np.random.Generator:
        """Return the generator for a purpose in this exchange."""
        return stream(seed, purpose, *self.parts, *more)

    def streams(
        self, seed: int, purpose: str, clients: Sequence[int]
    ) -> Sequence[np.random.Generator]:
        """Return each client's generator for a purpose in this exchange."""
        return streams(seed, purpose, *self.parts, clients=clients)

    @property
    def parts(self) -> tuple[int, int, int]:
        """Problem, round and exchange, as in the keys of streams."""
        return self.problem, self.round_index, self.exchange_index

    @property
    def token(self) -> str:
        """The name of the exchange within its run: problem.round.exchange."""
        return ".".join(map(str, self.parts))

    @property
    def is_judging(self) -> bool:
        """Whether x is judged, which is no part of the method."""
        return self.exchange_index <= JUDGING

    def __lt__(self, other: "Moment") -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, int, bool, int]:
        return self.problem, self.round_index, self.is_judging, abs(self.exchange_index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question to some clients, and what the driver adds to it.

    client_ids: ascending; row i of a tensor of each client's own is for client_ids[i]. budget: most
    queries of each of them, None for no limit. optional: whether nobody need answer. poisoned:
    whether these clients are to work on flipped labels. on_failure: what they do with a point at
    which their code raises (fedzo.objectives.asking). at_s: what a virtual clock shows when it is
    asked; enough: after so many answers to the exchanges made at once nobody else is waited for, 0
    is all; is_enough: the same as a question about who has answered, not before `patience` times
    the seconds of the first. All these stay here. up: how vectors of the answer are packed; down:
    how tensors of the question go, by name; the question holds what all then have.
    """

    question: Question[Any]
    client_ids: Sequence[int]
    moment: Moment = Moment()
    seed: int = 0
    budget: int | None = None
    optional: bool = False
    poisoned: bool = False
    on_failure: OnFailure = "fail"
    at_s: float = 0.0
    enough: int = 0
    is_enough: Callable[[Collection[int]], bool] | None = None
    patience: float = 1.0
    up: Scheme | None = None
    down: Mapping[str, Down] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The question's name, in messages and logs."""
        return self.question.kind

    @property
    def views(self) -> dict[str, Tensor]:
        """What its clients keep of the tensors that came as changes."""
        kept: dict[str, Tensor] = {}
        for name, told in self.down.items():
            view, version = view_names(name)
            kept[view] = getattr(self.question, name)
            kept[version] = torch.tensor(told.version)
        return kept

    def select(self, positions: Sequence[int]) -> "Exchange":
        """Return the part of the exchange that concerns the clients at these positions."""
        rows = torch.as_tensor(list(positions), dtype=torch.int64)
        return replace(
            self,
            client_ids=[self.client_ids[p] for p in positions],
            question=self.question.select(rows),
            down={name: told.select(positions) for name, told in self.down.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """The answers to one exchange.

    client_ids: those who answered, ascending; tensors: name -> [n, ...]; failures: client ->
    reason, for those who did not; counts: name -> client -> number, such as queries, also of those
    who failed. late: answers to earlier exchanges that came instead; duplicates: further copies of
    an answer; both are counted and thrown away.
    """

    client_ids: Sequence[int]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)
    late: int = 0
    duplicates: int = 0

    def total(self, name: str) -> int:
        """Return the sum of a count over all clients."""
        return sum(self.counts.get(name, {}).values())

    def only(self, client: int) -> "Replies":
        """Return what concerns one client."""
        rows = [i for i, other in enumerate(self.client_ids) if other == client]
        return Replies(
            client_ids=[self.client_ids[i] for i in rows],
            tensors={name: tensor[rows] for name, tensor in self.tensors.items()},
            counts={n: {client: of[client]} for n, of in self.counts.items() if client in of},
            failures={c: reason for c, reason in self.failures.items() if c == client},
        )

    def without(self, failures: Mapping[int, str]) -> "Replies":
        """Return the replies with some clients moved to the failures; counts are kept."""
        if not failures:
            return self
        keep = [i for i, client in enumerate(self.client_ids) if client not in failures]
        return replace(
            self,
            client_ids=[self.client_ids[i] for i in keep],
            tensors={name: tensor[keep] for name, tensor in self.tensors.items()},
            failures={**self.failures, **failures},
        )


def reject_misfits(parts: Sequence[Replies]) -> list[Replies]:
    """Turn answers whose tensors differ in name, shape or type from the majority's into failures.

    Each part is the answer of one client.
    """
    forms = [_form(part) for part in parts if len(part.client_ids)]
    if len(set(forms)) <= 1:
        return list(parts)
    usual = Counter(forms).most_common(1)[0][0]
    return [
        part.without(
            {
                client: f"malformed reply: tensors {_shown(form)}, most sent {_shown(usual)}"
                for client in part.client_ids
                if (form := _form(part)) != usual
            }
        )
        for part in parts
    ]


def misfit(part: Replies, exchange: Exchange) -> str:
    """Say what is wrong with an answer's tensors, by what is expected; empty if nothing."""
    for name, shapes in exchange.question.shapes().items():
        tensor = part.tensors.get(name)
        if tensor is None and exchange.up is not None and name in exchange.question.vectors_up:
            wrong = _unlike(part, name, exchange.up.compressor.forms(shapes[0][0]))
            if wrong:
                return wrong
            continue
        if tensor is None:
            return f"there is no tensor {name!r}"
        if tuple(tensor.shape[1:]) not in shapes or not tensor.is_floating_point():
            allowed = " or ".join(str(list(shape)) for shape in shapes)
            return f"{name} has shape {list(tensor.shape[1:])} and {tensor.dtype}, not {allowed}"
    return ""


def _unlike(part: Replies, name: str, forms: Mapping[str, Form]) -> str:
    """Say what is wrong with the parts of a packed vector; empty if nothing."""
    for own, (shape, dtype) in forms.items():
        tensor = part.tensors.get(part_name(name, own))
        if tensor is None:
            return f"there is no tensor {name!r}, and no {part_name(name, own)!r}"
        if tuple(tensor.shape[1:]) != shape or tensor.dtype != dtype:
            found = f"{list(tensor.shape[1:])} and {tensor.dtype}"
            return f"{part_name(name, own)} has shape {found}, not {list(shape)} and {dtype}"
    return ""


_Form = tuple[tuple[str, tuple[int, ...], str], ...]


def _form(part: Replies) -> _Form:
    """Return name, shape and type of every tensor of a reply."""
    named = sorted(part.tensors.items())
    return tuple((name, tuple(t.shape[1:]), str(t.dtype)) for name, t in named)


def _shown(form: _Form) -> str:
    return ", ".join(f"{name}: {list(shape)} {kind}" for name, shape, kind in form) or "none"


def join_replies(parts: Sequence[Replies]) -> Replies:
    """Join the replies of disjoint groups of clients into one, sorted by client."""
    if len(parts) == 1:
        return parts[0]
    answered = [part for part in parts if len(part.client_ids)]
    ids = [client for part in answered for client in part.client_ids]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    names = answered[0].tensors if answered else {}
    joined = {name: torch.cat([part.tensors[name] for part in answered]) for name in names}
    in_order = order == list(range(len(ids)))
    return Replies(
        client_ids=[ids[i] for i in order],
        tensors=joined if in_order else {name: t[order] for name, t in joined.items()},
        counts=_join_counts([part.counts for part in parts]),
        failures={client: reason for part in parts for client, reason in part.failures.items()},
        late=sum(part.late for part in parts),
        duplicates=sum(part.duplicates for part in parts),
    )


def _join_counts(parts: Sequence[Mapping[str, Mapping[int, int]]]) -> dict[str, dict[int, int]]:
    joined: dict[str, dict[int, int]] = {}
    for part in parts:
        for name, numbers in part.items():
            joined.setdefault(name, {}).update(numbers)
    return joined

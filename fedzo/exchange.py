"""What a strategy asks of clients, and what comes back.

An exchange is one question to some clients; its replies are stacked and sorted by client. Messages
are the wire form of the two (fedzo.messages) and exist only where there is a wire.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedzo.config import Scalar

ClientState = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One question: a kind, the clients, what all of them get and what each gets.

    kind: "train.<rule>", "query.<what>" or "evaluate"; client_ids: ascending; shared: name ->
    tensor for everyone; per_client: name -> tensor [n, ...], row i for client_ids[i]; config:
    scalars. expects: name -> shapes that this tensor of a client's answer may have; it is not sent,
    and answers from a wire that differ are rejected.
    """

    kind: str
    client_ids: Sequence[int]
    shared: Mapping[str, Tensor] = field(default_factory=dict)
    per_client: Mapping[str, Tensor] = field(default_factory=dict)
    config: Mapping[str, Scalar] = field(default_factory=dict)
    expects: Mapping[str, Sequence[tuple[int, ...]]] = field(default_factory=dict)

    def select(self, positions: Sequence[int]) -> "Exchange":
        """Return the part of the exchange that concerns the clients at these positions."""
        rows = torch.as_tensor(list(positions), dtype=torch.int64)
        return replace(
            self,
            client_ids=[self.client_ids[p] for p in positions],
            per_client={name: tensor[rows] for name, tensor in self.per_client.items()},
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
    for name, shapes in exchange.expects.items():
        tensor = part.tensors.get(name)
        if tensor is None:
            return f"there is no tensor {name!r}"
        if tuple(tensor.shape[1:]) not in shapes or not tensor.is_floating_point():
            allowed = " or ".join(str(list(shape)) for shape in shapes)
            return f"{name} has shape {list(tensor.shape[1:])} and {tensor.dtype}, not {allowed}"
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

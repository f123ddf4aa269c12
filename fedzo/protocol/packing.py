"""What travels of a vector where an exchange has a scheme for it, and what is made of that.

Up, a tensor "update" [n, d] becomes tensors "update/codes", "update/steps" and the like [n, ...];
down, x is what clients have and a few changes of it (`Down`). What a client remembers of either
stands in its state under names that begin with WIRE, which rules never see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from fedzo.compression.scheme import Scheme
from fedzo.errors import MessageError

WIRE = "wire/"
COUNTED = ("floats_down", "bytes_down", "floats_up", "bytes_up")
"""Counts of what has travelled, which the server makes where messages are packed."""
NOBODYS = -1
"""The version of who has none, or of whom nobody knows which."""


def part_name(name: str, part: str) -> str:
    """Return the name under which a part of a vector travels."""
    return f"{name}/{part}"


def is_wire(state: Mapping[str, Tensor]) -> bool:
    """Whether something in a state is of the wire."""
    return any(name.startswith(WIRE) for name in state)


def split_state(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what rules remember, and what the wire does."""
    wire = {name: tensor for name, tensor in state.items() if name.startswith(WIRE)}
    return {name: tensor for name, tensor in state.items() if name not in wire}, wire


@dataclass(frozen=True, slots=True)
class Down:
    """A vector on its way down, as changes: everybody then has version `version` of it.

    since: the version that each client has, NOBODYS where it gets the vector whole. changes:
    version -> parts [1, ...] of what led to it from the one before.
    """

    scheme: Scheme
    version: int
    since: Sequence[int]
    changes: Mapping[int, Mapping[str, Tensor]]

    def select(self, positions: Sequence[int]) -> "Down":
        """Return the part that concerns the clients at these positions."""
        return replace(self, since=[self.since[position] for position in positions])

    def sent(self, row: int, whole: Tensor) -> dict[str, Tensor]:
        """Return what the client at a position gets, by version and part."""
        if self.since[row] == NOBODYS:
            return {f"{self.version}/whole": whole}
        due = range(self.since[row] + 1, self.version + 1)
        return {f"{v}/{name}": t for v in due for name, t in self.changes[v].items()}

    def text(self) -> str:
        """Return scheme and version as a word for a message."""
        return f"{self.version}:{self.scheme.text()}"


def view_names(name: str) -> tuple[str, str]:
    """Return under which names a client remembers a vector and its version."""
    return f"{WIRE}{name}", f"{WIRE}{name}/version"


def received(
    name: str,
    version: int,
    scheme: Scheme,
    sent: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
) -> Tensor:
    """Return a vector of what was sent and what the client remembers.

    Changes that the client has already are passed over. Raises MessageError where it lacks one.
    """
    whole = sent.get(f"{version}/whole")
    if whole is not None:
        if whole.dim() != 1 or not whole.is_floating_point():
            raise MessageError(f"{name} comes with shape {list(whole.shape)} and {whole.dtype}")
        return whole
    kept, number = view_names(name)
    if kept not in state:
        raise MessageError(f"this client has no {name} that could be changed; send it whole")
    x, at = state[kept], int(state[number])
    if at > version:
        raise MessageError(f"this client is ahead, at change {at} of {name}; send it whole")
    while at < version:
        at += 1
        prefix = f"{at}/"
        parts = {n.removeprefix(prefix): t for n, t in sent.items() if n.startswith(prefix)}
        forms = {
            part: (tuple(t.shape[1:]), t.dtype) for part, t in parts.items() if t.shape[:1] == (1,)
        }
        compressor = scheme.compressor
        fits = forms == compressor.forms(len(x)) and len(forms) == len(parts)
        if not fits or not bool(compressor.sound(parts, len(x)).all()):
            raise MessageError(f"this client lacks change {at} of {name}; send it whole")
        x = x + scheme.compressor.decode(parts, len(x))[0].to(x)
    return x

"""Which node of a grid is which client, by what nodes say of themselves.

A node says its `partition-id`, and nobody vouches for it. So no node takes another's place: of
nodes that claim one number at the start none is asked; one that comes later is left out as long as
the holder of the number is there and answers. Who leaves the grid frees the number.
"""

import warnings
from collections import Counter
from collections.abc import Set

from fedzo.errors import FedzoWarning

MOST_CLIENTS = 1_000_000
"""Numbers beyond this are not believed: servers keep something for every client."""
_SPARSE = 1_000
"""Where no node says how many there are, a number is at most so many times that of the nodes."""


class Roster:
    """The nodes by client number; `nodes` are those that are asked.

    Before `settle` all nodes are equal; afterwards those that hold a number come first.
    """

    def __init__(self) -> None:
        self.nodes: dict[int, int] = {}
        self.complaints: dict[int, str] = {}
        self._claims: dict[int, int] = {}
        self._totals: dict[int, int] = {}
        self._doubts: dict[int, tuple[int, int]] = {}
        self._settled = False

    @property
    def heard(self) -> int:
        """How many nodes that are there have said something."""
        return len(self._claims.keys() | self.complaints.keys())

    def settle(self) -> None:
        """Fix who is who: from now on who comes later has to prove that the holder is gone."""
        self._settled = True

    def total(self) -> int:
        """Return how many clients there are to be: what most nodes say, of equals the fewest."""
        votes = Counter(self._totals.values())
        if votes:
            return min(votes, key=lambda told: (-votes[told], told))
        most = _SPARSE * max(1, len(self._claims))
        return 1 + max((client for client in self.nodes if client < most), default=-1)

    def complain(self, node: int, reason: str) -> None:
        """Note why a node is not asked."""
        self.complaints[node] = reason
        _tell(f"node {node} is not asked: {reason}")

    def claim(self, node: int, client: int, total: int) -> int | None:
        """Note who a node says it is; return the node that must be asked whether it is alive."""
        if client >= MOST_CLIENTS:
            self.complain(node, f"it says it is client {client}, beyond {MOST_CLIENTS}")
            return None
        if node in self._claims:
            self._answered_again(node, client)
            return None
        if 0 < total <= MOST_CLIENTS:
            self._totals[node] = total
        elif total:
            _tell(f"node {node} says that there are {total} clients, which is not believed")
        rivals = self._claimants(client)
        self._claims[node] = client
        if not rivals:
            self.nodes[client] = node
        elif self._settled and client in self.nodes:
            self._doubts[client] = (self.nodes.pop(client), node)
            return self._doubts[client][0]
        elif client not in self._doubts:
            self.nodes.pop(client, None)
            _tell(f"client {client} is not asked: {self.reason(client)}")
        return None

    def is_in_doubt(self, node: int) -> bool:
        """Return whether a node was asked whether it is alive."""
        return any(holder == node for holder, _ in self._doubts.values())

    def gone(self, node: int) -> None:
        """Give up a holder that did not answer whether it is alive: the newcomer has the number."""
        for client, (holder, newcomer) in list(self._doubts.items()):
            if holder == node:
                del self._doubts[client]
                self._claims.pop(node, None)
                self._take(client, newcomer)

    def keep(self, present: Set[int]) -> None:
        """Forget nodes that have left, and give their numbers to who else claims them."""
        left = self._claims.keys() - present
        self._claims = {n: c for n, c in self._claims.items() if n in present}
        self._totals = {n: t for n, t in self._totals.items() if n in present}
        self.complaints = {n: why for n, why in self.complaints.items() if n in present}
        self.nodes = {c: n for c, n in self.nodes.items() if n in present}
        self._doubts = {c: pair for c, pair in self._doubts.items() if not left & set(pair)}
        if left:
            for client in sorted(set(self._claims.values())):
                claimants = self._claimants(client)
                if client not in self.nodes and len(claimants) == 1:
                    self._take(client, claimants[0])

    def reason(self, client: int) -> str:
        """Return why nobody is asked for a client, though several nodes claim to be it."""
        claimants = self._claimants(client)
        if len(claimants) < 2:
            return ""
        names = ", ".join(map(str, claimants[:-1]))
        return (
            f"nodes {names} and {claimants[-1]} all say they are client {client}; start each"
            " SuperNode with a partition-id of its own"
        )

    def _claimants(self, client: int) -> list[int]:
        return sorted(node for node, claimed in self._claims.items() if claimed == client)

    def _answered_again(self, node: int, client: int) -> None:
        """Keep a holder that is alive, and leave the newcomer out."""
        holder, newcomer = self._doubts.get(client, (None, -1))
        if holder == node:
            del self._doubts[client]
            self.nodes[client] = node
            _tell(
                f"node {newcomer} is not asked: it says it is client {client}, and node {node},"
                " which is, still answers"
            )

    def _take(self, client: int, node: int) -> None:
        self.nodes[client] = node
        _tell(f"client {client} is now node {node}: the node that was has left or is silent")


def _tell(sentence: str) -> None:
    warnings.warn(sentence, FedzoWarning, stacklevel=3)

"""An engine over any flwr Grid: Flower's simulation, a SuperLink, or `InProcessGrid`."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedzo.errors import RunError
from fedzo.protocol import _compat
from fedzo.protocol.answers import Arrival, collect
from fedzo.protocol.claims import believable
from fedzo.protocol.exchange import ClientState, Exchange, Replies
from fedzo.protocol.messages import encode_exchange
from fedzo.runtime.engine import NOBODY_BEGAN
from fedzo.runtime.flower.arrivals import Begun, arrival_of, arrivals_of, reason_of
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.flower.roster import Roster
from fedzo.runtime.inprocess import check_disjoint

NO_NUMBER = "a node without a partition-id of 0 or more"
NO_NODE = "no node has this partition-id"
NOT_TAKEN = "the SuperLink did not take the message, such as for its size"
NODE_S = 3.0
"""Least time of a node in this process: it may be on a busy machine, with all of them."""
OVERDUE_KEPT = 10_000
"""Unanswered messages whose answers are still looked for, so that late ones can be counted."""


class FlowerEngine:
    """Performs exchanges over a flwr Grid, one message a client.

    Clients are known by their `partition-id`, asked once a node; replies are sorted by it. The grid
    is polled every `poll_s` seconds. For a node that has not said who it is an exchange waits at
    most `whoami_s` after it was first seen; it joins whenever it answers. Nodes that claim one
    number do not take each other's place (Roster); a client whose node has left or is silent may
    come back under another. Nodes of an InProcessGrid have the timeout each, at least NODE_S.
    Client states stay on the clients, who keep those of earlier rounds under `run_name`
    (clients.states): a resumed run of the same name goes on from them. `check` is called at every
    look and raises when what stands behind the grid has failed. `limit_nodes` is told the timeout
    of every exchange, so that no node takes longer.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        poll_s: float = 0.05,
        whoami_s: float = 30.0,
        run_name: str = "",
        check: Callable[[], None] = lambda: None,
        limit_nodes: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        _compat.ensure_task_identity()
        self._grid = grid
        self._poll_s = poll_s
        self._whoami_s = whoami_s
        self._check = check
        self._tell_limit = limit_nodes
        self._run = {"name": run_name, "attempt": uuid4().hex}
        self._roster = Roster()
        self._greeted: dict[int, float] = {}
        self._greetings: dict[str, int] = {}
        self._overdue: list[str] = []
        self._late = 0
        self._begun: dict[tuple[str, int], Begun] = {}

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        check_disjoint(exchanges)
        alone = [(e.moment.token, client) for e in exchanges for client in e.client_ids]
        if len(alone) == 1 and alone[0] in self._begun:
            replies = [self._ended(exchanges[0], self._begun.pop(alone[0]))]
        else:
            replies = self._asked(exchanges, timeout_s)
        replies = believable(exchanges, replies)
        late, self._late = self._late, 0
        return [replace(part, late=part.late + late * (i == 0)) for i, part in enumerate(replies)]

    def _asked(self, exchanges: Sequence[Exchange], timeout_s: float) -> list[Replies]:
        wanted = {client for exchange in exchanges for client in exchange.client_ids}
        self._let_end(wanted)
        end = self._reach(wanted, timeout_s)
        messages = [message for exchange in exchanges for message in self._messages(exchange)]
        arrivals = self._send(messages, end)
        return [collect(e, [*arrivals_of(e, arrivals), *self._absent(e)]) for e in exchanges]

    def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
        end = self._reach(exchange.client_ids, timeout_s)
        waiting, refused = self._push(self._messages(exchange))
        begun = {client: Begun(end, identity) for identity, client in waiting.items()}
        begun |= {a.client_id: Begun(end, "", a) for a in [*refused, *self._absent(exchange)]}
        self._begun |= {(exchange.moment.token, client): one for client, one in begun.items()}
        return [*waiting.values()]

    def await_one(self) -> tuple[str, int]:
        if not self._begun:
            raise RunError(NOBODY_BEGAN)
        while True:
            self._look_at_begun()
            for key, one in self._begun.items():
                if one.arrival is not None or time.monotonic() > one.end:
                    return key
            time.sleep(self._poll_s)

    def _let_end(self, clients: Collection[int]) -> None:
        """Wait for those that are at work: of two messages at once a node forgets what one left."""
        while any(
            client in clients and one.arrival is None and time.monotonic() <= one.end
            for (_, client), one in self._begun.items()
        ):
            self._look_at_begun()
            time.sleep(self._poll_s)

    def _look_at_begun(self) -> None:
        """Look once for answers of those that have begun."""
        open_ = {one.identity: key for key, one in self._begun.items() if one.arrival is None}
        waiting = {identity: client for identity, (_, client) in open_.items()}
        arrivals = {a.client_id: a for a in self._pull(waiting)} if waiting else {}
        for identity, key in open_.items():
            if identity not in waiting:
                self._begun[key].arrival = arrivals[key[1]]

    def wait_for_clients(self, at_least: int, timeout_s: float) -> int:
        """Wait until some clients are connected; return how many there are to be.

        That is what most nodes say as `num-partitions`, else one more than the largest partition-id
        seen. As many nodes as clients are enough, whatever they say: who is not a client by then is
        a failure in the history. Raises RunError when fewer than `at_least` are there in time.
        """
        end = time.monotonic() + timeout_s
        self._limit_nodes(min(timeout_s, self._whoami_s))
        while True:
            self._find_nodes(range(max(at_least, self._roster.total())), end)
            needed = max(at_least, self._roster.total())
            enough = max(len(self._roster.nodes), self._roster.heard) >= needed or self._is_full()
            if time.monotonic() > end or (enough and not self._is_listening()):
                break
            time.sleep(self._poll_s)
        self._roster.settle()
        if self._roster.heard < at_least or not self._roster.nodes:
            said = sorted(set(self._roster.complaints.values()))
            count = len(self._roster.nodes)
            raise RunError(
                f"{count} clients are connected to the grid after {timeout_s:g} s,"
                f" {at_least} are needed; start SuperNodes first"
                + "".join(f"; one said: {complaint}" for complaint in said)
            )
        return self._roster.total()

    def client_states(self) -> Mapping[int, ClientState]:
        return {}

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        out = [one.identity for one in self._begun.values() if one.arrival is None]
        self._overdue = [*self._overdue, *out][-OVERDUE_KEPT:]
        self._begun.clear()
        if states:
            raise RunError(
                "this checkpoint holds client states, which a Flower engine cannot restore; resume"
                " with the engine that wrote it"
            )

    def close(self) -> None:
        """Do nothing: the grid belongs to whoever made it."""

    def _reach(self, wanted: Collection[int], timeout_s: float) -> float:
        """Find the nodes of clients that are to be asked; return when their time is up."""
        end = time.monotonic() + timeout_s
        self._limit_nodes(timeout_s)
        self._tell_limit(timeout_s)
        self._find_nodes(wanted, end)
        self._roster.settle()
        return end

    def _limit_nodes(self, timeout_s: float) -> None:
        """Let no node of this process take longer: polling sees only what has ended."""
        if isinstance(self._grid, InProcessGrid):
            self._grid.limit_nodes(max(timeout_s, NODE_S))

    def _is_full(self) -> bool:
        """Return whether all nodes are there that ever will be."""
        grid = self._grid
        return isinstance(grid, InProcessGrid) and len(self._greeted) >= grid.num_nodes

    def _is_listening(self) -> bool:
        """Return whether a node was asked lately who it is, and may still say."""
        asked = [self._greeted.get(node, -math.inf) for node in self._greetings.values()]
        return max(asked, default=-math.inf) + self._whoami_s >= time.monotonic()

    def _absent(self, exchange: Exchange) -> list[Arrival]:
        away = [client for client in exchange.client_ids if client not in self._roster.nodes]
        return [Arrival(client, error=self._roster.reason(client) or NO_NODE) for client in away]

    def _messages(self, exchange: Exchange) -> list[tuple[int, Message]]:
        contents = zip(exchange.client_ids, encode_exchange(exchange, self._run), strict=True)
        group = str(exchange.moment.round_index)
        nodes = self._roster.nodes
        return [
            (client, Message(content, nodes[client], exchange.kind, group_id=group))
            for client, content in contents
            if client in nodes
        ]

    def _find_nodes(self, wanted: Collection[int], end: float) -> None:
        """Greet new nodes, and wait a while for those greeted lately if a client is missing."""
        present = set(self._grid.get_node_ids())
        self._roster.keep(present)
        fresh = sorted(present - self._greeted.keys())
        self._greeted = {node: at for node, at in self._greeted.items() if node in present}
        self._greet(fresh)
        while self._greetings and not all(client in self._roster.nodes for client in wanted):
            self._pull({})
            if time.monotonic() > end or not self._is_listening():
                break
            time.sleep(self._poll_s)
        self._give_up_silent()

    def _greet(self, nodes: Sequence[int]) -> None:
        asked = [Message(RecordDict(), node, "query.whoami", group_id="whoami") for node in nodes]
        taken = set(self._grid.push_messages(asked)) if asked else set()
        for node, message in zip(nodes, asked, strict=True):
            if message.metadata.message_id in taken:
                self._greetings[message.metadata.message_id] = node
                self._greeted[node] = time.monotonic()

    def _give_up_silent(self) -> None:
        """Let newcomers have the numbers of nodes that were asked anew and have not answered."""
        late = time.monotonic() - self._whoami_s
        for identity, node in list(self._greetings.items()):
            if self._greeted.get(node, -math.inf) < late and self._roster.is_in_doubt(node):
                self._roster.gone(node)
                del self._greetings[identity]

    def _meet(self, node: int, reply: Message) -> None:
        """Take down which client a node says it is."""
        who = reply.content.get("whoami") if reply.has_content() else None
        number = who.get("partition-id") if isinstance(who, ConfigRecord) else None
        if not isinstance(who, ConfigRecord) or type(number) is not int or number < 0:
            self._roster.complain(node, reason_of(reply) if reply.has_error() else NO_NUMBER)
            return
        total = who.get("num-partitions")
        holder = self._roster.claim(node, number, total if type(total) is int else 0)
        if holder is not None:
            self._greet([holder])

    def _send(self, messages: Sequence[tuple[int, Message]], end: float) -> list[Arrival]:
        """Push, poll until all have answered or time is up, and return what came, by client."""
        waiting, arrivals = self._push(messages)
        while waiting:
            arrivals += self._pull(waiting)
            if not waiting or time.monotonic() > end:
                break
            time.sleep(self._poll_s)
        self._overdue = [*self._overdue, *waiting][-OVERDUE_KEPT:]
        return arrivals

    def _push(
        self, messages: Sequence[tuple[int, Message]]
    ) -> tuple[dict[str, int], list[Arrival]]:
        """Push messages; return identity -> client of what was taken, and what was not."""
        waiting: dict[str, int] = {}
        refused: list[Arrival] = []
        if not messages:
            return waiting, refused
        pushed = self._grid.push_messages([message for _, message in messages])
        taken = {identity for identity in pushed if identity}
        for client, message in messages:
            if message.metadata.message_id in taken:
                waiting[message.metadata.message_id] = client
            else:
                refused.append(Arrival(client, error=NOT_TAKEN))
        return waiting, refused

    def _ended(self, exchange: Exchange, begun: Begun) -> Replies:
        """Return what a client has answered that had begun; one that is late is not heard."""
        if begun.arrival is None:
            self._overdue = [*self._overdue, begun.identity][-OVERDUE_KEPT:]
        return collect(exchange, [] if begun.arrival is None else [begun.arrival])

    def _pull(self, waiting: dict[str, int]) -> list[Arrival]:
        """Look once for answers; those that come are taken off `waiting` and returned.

        Greetings are noted, and answers to messages of earlier calls counted as late.
        """
        self._check()
        arrivals = []
        for reply in self._grid.pull_messages({*waiting, *self._greetings, *self._overdue}):
            identity = reply.metadata.reply_to_message_id
            if identity in waiting:
                arrivals.append(arrival_of(reply, waiting.pop(identity)))
            elif identity in self._greetings:
                self._meet(self._greetings.pop(identity), reply)
            elif identity in self._overdue:
                self._overdue.remove(identity)
                self._late += 1
        return arrivals

"""An engine over any flwr Grid: Flower's simulation, a SuperLink, or `InProcessGrid`."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedzo.errors import RunError
from fedzo.exchange import ClientState, Exchange, Replies
from fedzo.messages import encode_exchange
from fedzo.runtime import _compat
from fedzo.runtime.answers import Arrival, collect
from fedzo.runtime.claims import believable
from fedzo.runtime.inprocess import check_disjoint

logger = logging.getLogger(__name__)

NO_NUMBER = "a node without a partition-id of 0 or more"
NO_NODE = "no node has this partition-id"
NOT_TAKEN = "the SuperLink did not take the message, such as for its size"
OVERDUE_KEPT = 10_000
"""Unanswered messages whose answers are still looked for, so that late ones can be counted."""


class FlowerEngine:
    """Performs exchanges over a flwr Grid, one message a client.

    Clients are known by their `partition-id`, asked once a node; replies are sorted by it. The grid
    is polled every `poll_s` seconds. For a node that has not said who it is an exchange waits at
    most `whoami_s` after it was first seen; it joins whenever it answers. Of two nodes with one
    partition-id the one that answered last serves, so a client may come back under another node.
    Client states stay on the clients, who keep those of earlier rounds under `run_name`
    (clients.states): a resumed run of the same name goes on from them. `check` is called at every
    look and raises when what stands behind the grid has failed.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        poll_s: float = 0.05,
        whoami_s: float = 30.0,
        run_name: str = "",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        _compat.ensure_task_identity()
        self._grid = grid
        self._poll_s = poll_s
        self._whoami_s = whoami_s
        self._check = check
        self._run = {"name": run_name, "attempt": uuid4().hex}
        self._nodes: dict[int, int] = {}
        self._greeted: dict[int, float] = {}
        self._greetings: dict[str, int] = {}
        self._overdue: list[str] = []
        self._late = 0
        self._partitions = 0
        self._complaints: dict[int, str] = {}

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        check_disjoint(exchanges)
        end = time.monotonic() + timeout_s
        wanted = {client for exchange in exchanges for client in exchange.client_ids}
        self._find_nodes(wanted, end)
        messages = [message for exchange in exchanges for message in self._messages(exchange)]
        arrivals = self._send(messages, end)
        replies = [collect(e, [*_arrivals_of(e, arrivals), *self._absent(e)]) for e in exchanges]
        replies = believable(exchanges, replies)
        late, self._late = self._late, 0
        return [replace(part, late=part.late + late * (i == 0)) for i, part in enumerate(replies)]

    def wait_for_clients(self, at_least: int, timeout_s: float) -> int:
        """Wait until some clients are connected; return how many there are to be.

        That is `num-partitions` where the nodes know it, else one more than the largest
        partition-id seen. Raises RunError when fewer than `at_least` are there in time.
        """
        end = time.monotonic() + timeout_s
        while len(self._nodes) < max(at_least, self._partitions):
            self._find_nodes(set(range(max(at_least, self._partitions))), end)
            if time.monotonic() > end:
                break
            time.sleep(self._poll_s)
        if len(self._nodes) < at_least:
            said = sorted(set(self._complaints.values()))
            raise RunError(
                f"{len(self._nodes)} clients are connected to the grid after {timeout_s:g} s,"
                f" {at_least} are needed; start SuperNodes first"
                + "".join(f"; one said: {complaint}" for complaint in said)
            )
        return max(self._partitions, max(self._nodes) + 1)

    def client_states(self) -> Mapping[int, ClientState]:
        return {}

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        if states:
            raise RunError(
                "this checkpoint holds client states, which a Flower engine cannot restore; resume"
                " with the engine that wrote it"
            )

    def close(self) -> None:
        """Do nothing: the grid belongs to whoever made it."""

    def _absent(self, exchange: Exchange) -> list[Arrival]:
        return [Arrival(c, error=NO_NODE) for c in exchange.client_ids if c not in self._nodes]

    def _messages(self, exchange: Exchange) -> list[tuple[int, Message]]:
        contents = zip(exchange.client_ids, encode_exchange(exchange, self._run), strict=True)
        group = str(exchange.config.get("round_index", 0))
        return [
            (client, Message(content, self._nodes[client], exchange.kind, group_id=group))
            for client, content in contents
            if client in self._nodes
        ]

    def _find_nodes(self, wanted: set[int], end: float) -> None:
        """Greet new nodes, and wait a while for those greeted lately if a client is missing."""
        present = set(self._grid.get_node_ids())
        self._nodes = {client: node for client, node in self._nodes.items() if node in present}
        fresh = sorted(present - self._greeted.keys())
        self._greeted = {node: at for node, at in self._greeted.items() if node in present}
        asked = [Message(RecordDict(), node, "query.whoami", group_id="whoami") for node in fresh]
        taken = set(self._grid.push_messages(asked)) if asked else set()
        for node, message in zip(fresh, asked, strict=True):
            if message.metadata.message_id in taken:
                self._greetings[message.metadata.message_id] = node
                self._greeted[node] = time.monotonic()
        while self._greetings and not wanted <= self._nodes.keys():
            self._pull({})
            waiting = [self._greeted.get(node, -math.inf) for node in self._greetings.values()]
            now = time.monotonic()
            if now > end or max(waiting, default=-math.inf) + self._whoami_s < now:
                break
            time.sleep(self._poll_s)

    def _meet(self, node: int, reply: Message) -> None:
        """Take down which client a node says it is."""
        who = reply.content.get("whoami") if reply.has_content() else None
        number = who.get("partition-id") if isinstance(who, ConfigRecord) else None
        if not isinstance(who, ConfigRecord) or type(number) is not int or number < 0:
            self._complaints[node] = _reason(reply) if reply.has_error() else NO_NUMBER
            return
        if (before := self._nodes.get(number, node)) != node:
            logger.warning(
                "nodes %d and %d both are client %d; asking %d", before, node, number, node
            )
        self._nodes[number] = node
        total = who.get("num-partitions")
        self._partitions = max(self._partitions, total if type(total) is int else 0)

    def _send(self, messages: Sequence[tuple[int, Message]], end: float) -> list[Arrival]:
        """Push, poll until all have answered or time is up, and return what came, by client."""
        if not messages:
            return []
        pushed = self._grid.push_messages([message for _, message in messages])
        taken = {identity for identity in pushed if identity}
        waiting: dict[str, int] = {}
        arrivals: list[Arrival] = []
        for client, message in messages:
            if message.metadata.message_id in taken:
                waiting[message.metadata.message_id] = client
            else:
                arrivals.append(Arrival(client, error=NOT_TAKEN))
        while waiting:
            arrivals += self._pull(waiting)
            if not waiting or time.monotonic() > end:
                break
            time.sleep(self._poll_s)
        self._overdue = [*self._overdue, *waiting][-OVERDUE_KEPT:]
        return arrivals

    def _pull(self, waiting: dict[str, int]) -> list[Arrival]:
        """Look once for answers; those that come are taken off `waiting` and returned.

        Greetings are noted, and answers to messages of earlier calls counted as late.
        """
        self._check()
        arrivals = []
        for reply in self._grid.pull_messages({*waiting, *self._greetings, *self._overdue}):
            identity = reply.metadata.reply_to_message_id
            if identity in waiting:
                arrivals.append(_arrival(reply, waiting.pop(identity)))
            elif identity in self._greetings:
                self._meet(self._greetings.pop(identity), reply)
            elif identity in self._overdue:
                self._overdue.remove(identity)
                self._late += 1
        return arrivals


def _arrivals_of(exchange: Exchange, arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Return what came from the clients of an exchange."""
    ids = set(exchange.client_ids)
    return [arrival for arrival in arrivals if arrival.client_id in ids]


def _arrival(reply: Message, client: int) -> Arrival:
    if reply.has_error():
        return Arrival(client, error=_reason(reply))
    return Arrival(client, content=reply.content)


def _reason(reply: Message) -> str:
    return reply.error.reason or f"error code {reply.error.code}"

"""An engine over any flwr Grid: Flower's simulation, a SuperLink, or `InProcessGrid`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedzo.errors import RunError
from fedzo.exchange import ClientState, Exchange, Replies
from fedzo.messages import encode_exchange
from fedzo.runtime import _compat
from fedzo.runtime.answers import Arrival, collect
from fedzo.runtime.inprocess import check_disjoint

NO_NODE = "no node has this partition-id"
NOT_TAKEN = "the SuperLink did not take the message, such as for its size"
OVERDUE_KEPT = 10_000
"""Unanswered messages whose answers are still looked for, so that late ones can be counted."""


class FlowerEngine:
    """Performs exchanges over a flwr Grid, one message a client.

    Clients are known by their `partition-id`, asked once a node; replies are sorted by it. The grid
    is polled every `poll_s` seconds. A node that has not said who it is within `whoami_s` is asked
    again only when a client is missing; one that comes back under another node number takes its
    place again. Client states stay on the clients, who keep those of earlier rounds under
    `run_name` (clients.states): a resumed run of the same name goes on from them.
    """

    def __init__(
        self, grid: Grid, *, poll_s: float = 0.05, whoami_s: float = 30.0, run_name: str = ""
    ) -> None:
        _compat.ensure_task_identity()
        self._grid = grid
        self._poll_s = poll_s
        self._whoami_s = whoami_s
        self._run_name = run_name
        self._nodes: dict[int, int] = {}
        self._silent: set[int] = set()
        self._overdue: list[str] = []
        self._late = 0
        self._complaints: set[str] = set()
        self._partitions = 0

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        check_disjoint(exchanges)
        end = time.monotonic() + timeout_s
        wanted = {client for exchange in exchanges for client in exchange.client_ids}
        self._find_nodes(end, wanted)
        messages = [message for exchange in exchanges for message in self._messages(exchange)]
        arrivals = self._send(messages, end)
        replies = [collect(e, [*_arrivals_of(e, arrivals), *self._absent(e)]) for e in exchanges]
        late, self._late = self._late, 0
        return [replace(part, late=part.late + late * (i == 0)) for i, part in enumerate(replies)]

    def wait_for_clients(self, at_least: int, timeout_s: float) -> int:
        """Wait until some clients are connected; return how many there are to be.

        That is `num-partitions` where the nodes know it, else one more than the largest
        partition-id seen. Raises RunError when fewer than `at_least` are there in time.
        """
        end = time.monotonic() + timeout_s
        while len(self._nodes) < max(at_least, self._partitions):
            self._find_nodes(end, set(range(max(at_least, self._partitions))))
            if time.monotonic() > end:
                break
            time.sleep(self._poll_s)
        if len(self._nodes) < at_least:
            raise RunError(
                f"{len(self._nodes)} clients are connected to the grid after {timeout_s:g} s,"
                f" {at_least} are needed; start SuperNodes first"
                + "".join(f"; one said: {complaint}" for complaint in self._complaints)
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
        contents = zip(exchange.client_ids, encode_exchange(exchange), strict=True)
        group = str(exchange.config.get("round_index", 0))
        messages = []
        for client, content in contents:
            if client in self._nodes:
                content["run"] = ConfigRecord({"name": self._run_name})
                node = self._nodes[client]
                messages.append((client, Message(content, node, exchange.kind, group_id=group)))
        return messages

    def _find_nodes(self, end: float, wanted: set[int]) -> None:
        """Ask new nodes for their partition-id, and silent ones too if a client is missing."""
        present = set(self._grid.get_node_ids())
        self._nodes = {client: node for client, node in self._nodes.items() if node in present}
        again = not wanted <= self._nodes.keys()
        known = set(self._nodes.values()) | (set() if again else self._silent)
        fresh = sorted(present - known)
        asked = [
            (i, Message(RecordDict(), node, "query.whoami", group_id="whoami"))
            for i, node in enumerate(fresh)
        ]
        answers = self._send(asked, min(end, time.monotonic() + self._whoami_s))
        said = {fresh[a.client_id]: a.content for a in answers if a.content is not None}
        self._complaints = {a.error for a in answers if a.error}
        self._silent = (self._silent | set(fresh)) & present
        for node, content in said.items():
            who = content.get("whoami")
            number = who.get("partition-id") if isinstance(who, ConfigRecord) else None
            if isinstance(who, ConfigRecord) and isinstance(number, int):
                self._nodes[number] = node
                self._silent.discard(node)
                self._partitions = max(self._partitions, _whole(who.get("num-partitions")))

    def _send(self, messages: Sequence[tuple[int, Message]], end: float) -> list[Arrival]:
        """Push, poll until all have answered or time is up, and return what came, by client.

        Answers to messages of earlier calls are counted as late.
        """
        if not messages:
            return []
        pushed = self._grid.push_messages([message for _, message in messages])
        taken = {identity for identity in pushed if identity}
        sent = {message.metadata.message_id: client for client, message in messages}
        arrivals = [Arrival(c, error=NOT_TAKEN) for i, c in sent.items() if i not in taken]
        waiting = {identity: client for identity, client in sent.items() if identity in taken}
        while waiting:
            for reply in self._grid.pull_messages({*waiting, *self._overdue}):
                identity = reply.metadata.reply_to_message_id
                if identity in waiting:
                    arrivals.append(_arrival(reply, waiting.pop(identity)))
                elif identity in self._overdue:
                    self._overdue.remove(identity)
                    self._late += 1
            if not waiting or time.monotonic() > end:
                break
            time.sleep(self._poll_s)
        self._overdue = [*self._overdue, *waiting][-OVERDUE_KEPT:]
        return arrivals


def _arrivals_of(exchange: Exchange, arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Return what came from the clients of an exchange."""
    ids = set(exchange.client_ids)
    return [arrival for arrival in arrivals if arrival.client_id in ids]


def _arrival(reply: Message, client: int) -> Arrival:
    if reply.has_error():
        return Arrival(client, error=reply.error.reason or f"error code {reply.error.code}")
    return Arrival(client, content=reply.content)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0

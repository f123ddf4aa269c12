"""Flower as a wire: an engine over any flwr Grid, and a Grid that runs apps in this process.

`FlowerEngine(grid)` performs exchanges over whatever stands behind the grid. `InProcessGrid(app,
num_clients=6)` runs any unmodified ClientApp under any unmodified Flower strategy, without Ray,
processes or polling.
"""

import copy
import time
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedzo.errors import ConfigError, MessageError, RunError
from fedzo.exchange import ClientState, Exchange, Replies, join_replies, reject_misfits
from fedzo.messages import decode_reply, encode_exchange
from fedzo.runtime import _compat
from fedzo.runtime._compat import Run
from fedzo.runtime.inprocess import check_disjoint

_NODE_OFFSET = 1_000


class InProcessGrid(Grid):
    """A flwr Grid whose nodes are called directly, one after the other, in this process.

    Node `1000 + i` has partition-id i and a Context of its own that lives as long as the grid. A
    client that raises answers with an Error, as on a SuperLink. Contents are handed over by copy of
    their records; with `strict=True` every message goes through protobuf bytes.
    """

    def __init__(self, client_app: ClientApp, *, num_clients: int, strict: bool = False) -> None:
        if num_clients < 1:
            raise ConfigError(f"num_clients={num_clients} must be at least 1")
        _compat.ensure_task_identity()
        self._app = client_app
        self._strict = strict
        self._run = _compat.empty_run()
        self._answers: dict[str, Message] = {}
        self._contexts = {
            _NODE_OFFSET + i: Context(
                run_id=self._run.run_id,
                node_id=_NODE_OFFSET + i,
                node_config={"partition-id": i, "num-partitions": num_clients},
                state=RecordDict(),
                run_config={},
            )
            for i in range(num_clients)
        }

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message (Flower deprecates this in favor of Message itself)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run each message at once; one for an unknown node gets the empty identity, unanswered."""
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._answers.pop(i) for i in message_ids if i in self._answers]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run all messages; answers that came after the timeout are dropped, as on a SuperLink."""
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        for message in messages:
            answers = self.pull_messages([self._deliver(message)])
            if end is None or time.monotonic() <= end:
                replies += answers
        return replies

    def _deliver(self, message: Message) -> str:
        node = message.metadata.dst_node_id
        if node not in self._contexts:
            return ""
        identity = _compat.assign_message_id(message)
        reply = self._call(self._received(message), node)
        _compat.assign_message_id(reply)
        self._answers[identity] = self._received(reply)
        return identity

    def _call(self, message: Message, node: int) -> Message:
        """Call the app; the node keeps what the app did to its Context only if it answered."""
        context = copy.copy(self._contexts[node])
        context.state = _copy_records(context.state)
        try:
            reply = self._app(message=message, context=context)
            if not isinstance(reply, Message):
                raise TypeError(f"the ClientApp returned {reply!r:.60}, not a Message")
        except Exception as error:  # what a client raises is its answer, as in Flower
            reason = f"{type(error).__name__}: {error}"
            return Message(Error(code=_compat.CLIENT_RAISED, reason=reason), reply_to=message)
        self._contexts[node] = context
        return reply

    def _received(self, message: Message) -> Message:
        """Return the message as received: edits do not reach what the sender holds."""
        if self._strict:
            return _compat.message_round_trip(message)
        if not message.has_content():
            return message
        return _compat.message_with(message, _copy_records(message.content))


class FlowerEngine:
    """Performs exchanges over a flwr Grid, one message a client.

    Clients are known by their `partition-id`, asked once a node; replies are sorted by it. The grid
    is polled every `poll_s` seconds. A node that has not said who it is within `whoami_s` is asked
    again only when a client is missing. Client states live in the nodes' Contexts, so checkpoints
    hold none of them.
    """

    def __init__(self, grid: Grid, *, poll_s: float = 0.05, whoami_s: float = 30.0) -> None:
        _compat.ensure_task_identity()
        self._grid = grid
        self._poll_s = poll_s
        self._whoami_s = whoami_s
        self._nodes: dict[int, int] = {}
        self._silent: set[int] = set()
        self._partitions = 0

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        check_disjoint(exchanges)
        end = time.monotonic() + timeout_s
        wanted = {client for exchange in exchanges for client in exchange.client_ids}
        self._find_nodes(end, again=not wanted <= self._nodes.keys())
        addressed = [self._messages(exchange) for exchange in exchanges]
        answers = self._send([m for messages in addressed for m in messages.values()], end)
        return [
            join_replies(reject_misfits([_answer(messages, answers, c) for c in e.client_ids]))
            for e, messages in zip(exchanges, addressed, strict=True)
        ]

    def wait_for_clients(self, at_least: int, timeout_s: float) -> int:
        """Wait until some clients are connected; return how many there are to be.

        That is `num-partitions` where the nodes know it, else one more than the largest
        partition-id seen. Raises RunError when fewer than `at_least` are there in time.
        """
        end = time.monotonic() + timeout_s
        while len(self._nodes) < max(at_least, self._partitions):
            self._find_nodes(end, again=True)
            if time.monotonic() > end:
                break
            time.sleep(self._poll_s)
        if len(self._nodes) < at_least:
            raise RunError(
                f"{len(self._nodes)} clients are connected to the grid after {timeout_s:g} s,"
                f" {at_least} are needed; start SuperNodes first"
            )
        return max(self._partitions, max(self._nodes) + 1)

    def client_states(self) -> Mapping[int, ClientState]:
        return {}

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        if states:
            raise RunError(
                "this checkpoint holds client states, which a Flower engine cannot restore"
            )

    def _messages(self, exchange: Exchange) -> dict[int, Message]:
        contents = zip(exchange.client_ids, encode_exchange(exchange), strict=True)
        group = str(exchange.config.get("round_index", 0))
        return {
            client: Message(content, self._nodes[client], exchange.kind, group_id=group)
            for client, content in contents
            if client in self._nodes
        }

    def _find_nodes(self, end: float, *, again: bool) -> None:
        """Ask new nodes, and silent ones `again`, for their partition-id."""
        known = set(self._nodes.values()) | (set() if again else self._silent)
        fresh = [node for node in self._grid.get_node_ids() if node not in known]
        asked = [Message(RecordDict(), node, "query.whoami", group_id="whoami") for node in fresh]
        answers = self._send(asked, min(end, time.monotonic() + self._whoami_s))
        self._silent = (self._silent | set(fresh)) - answers.keys()
        for node, reply in answers.items():
            who = reply.content.get("whoami") if reply.has_content() else None
            if isinstance(who, ConfigRecord) and isinstance(who.get("partition-id"), int):
                self._nodes[int(who["partition-id"])] = node  # type: ignore[arg-type]
                self._partitions = max(self._partitions, int(who.get("num-partitions", 0)))  # type: ignore[arg-type]

    def _send(self, messages: list[Message], end: float) -> dict[int, Message]:
        """Push, poll until all have answered or time is up, and return replies by node."""
        open_ids = {identity for identity in self._grid.push_messages(messages) if identity}
        replies: dict[int, Message] = {}
        while open_ids:
            for reply in self._grid.pull_messages(open_ids):
                replies[reply.metadata.src_node_id] = reply
                open_ids.discard(reply.metadata.reply_to_message_id)
            if not open_ids or time.monotonic() > end:
                break
            time.sleep(self._poll_s)
        return replies


def _answer(
    messages: Mapping[int, Message], answers: Mapping[int, Message], client: int
) -> Replies:
    """Return what one client answered, or why it did not."""
    if client not in messages:
        return _missing(client, "no node has this partition-id")
    reply = answers.get(messages[client].metadata.dst_node_id)
    if reply is None:
        return _missing(client, "no answer in time")
    if reply.has_error():
        return _missing(client, reply.error.reason or f"error code {reply.error.code}")
    try:
        return decode_reply(reply.content, client_id=client)
    except MessageError as error:
        return _missing(client, f"malformed reply: {error}")


def _missing(client: int, reason: str) -> Replies:
    return Replies(client_ids=[], failures={client: reason})


def _copy_records(content: RecordDict) -> RecordDict:
    """Copy records and the lists in them; arrays are immutable and stay shared."""
    copied = RecordDict()
    for name, record in content.items():
        fresh = record.copy()
        for key, value in fresh.items():
            if isinstance(value, list):
                fresh[key] = list(value)  # type: ignore[assignment]
        copied[name] = fresh
    return copied

"""A flwr Grid in this process: stock Flower strategies and ClientApps without Ray or polling.

`InProcessGrid(app, num_clients=6)` runs any unmodified ClientApp under any unmodified strategy.
"""

import copy
import time
from collections.abc import Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedzo.errors import ConfigError
from fedzo.runtime import _compat
from fedzo.runtime._compat import Run

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

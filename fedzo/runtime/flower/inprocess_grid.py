"""A flwr Grid in this process: stock Flower strategies and ClientApps without Ray or polling.

`InProcessGrid(app, num_clients=6)` runs any unmodified ClientApp under any unmodified strategy.
"""

import copy
import math
import time
import warnings
from collections.abc import Iterable, Mapping
from functools import partial

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedzo.config import Scalar
from fedzo.errors import ConfigError, FedzoWarning, RunError
from fedzo.failure import failure_of
from fedzo.protocol import _compat
from fedzo.protocol._compat import Run
from fedzo.runtime.flower.node_task import NodeTask, Threads
from fedzo.runtime.threads import torch_threads

_NODE_OFFSET = 1_000
_LOOK_S, _LOOKS = 0.9, 3
"""Who looks for nodes so often, so slowly and without a message, waits for some to come."""


class InProcessGrid(Grid):
    """A flwr Grid whose nodes are called directly, one after the other, in this process.

    Node `1000 + i` has partition-id i and a Context of its own that lives as long as the grid.
    run_config: what apps find in `context.run_config`; node_config: further settings of every node.
    A client that raises answers with an Error, as on a SuperLink, whatever it raises but Ctrl-C.
    Contents are handed over by copy of their records; with `strict=True` every message goes through
    protobuf bytes.

    Nodes take turns, since apps may share what is global in a process, such as a random generator;
    so they need no locks, and the same seed gives the same bits. A timeout is each node's own, by
    its own clock. A node that overruns it is left to go on beside the others, which is told in a
    warning; for the rest of those messages turns become shorter, so that waits do not add up.
    """

    def __init__(
        self,
        client_app: ClientApp,
        *,
        num_clients: int,
        strict: bool = False,
        run_config: Mapping[str, Scalar] | None = None,
        node_config: Mapping[str, Scalar] | None = None,
    ) -> None:
        if num_clients < 1:
            raise ConfigError(f"num_clients={num_clients} must be at least 1")
        _compat.ensure_task_identity()
        self._app = client_app
        self._strict = strict
        self._run = _compat.empty_run()
        self._answers: dict[str, Message] = {}
        self._tasks: dict[int, NodeTask] = {}
        self._threads = Threads()
        self._timeout: float | None = None
        self._patience = 0.0
        self._drops_late = False
        self._looks: list[float] = []
        run_config = _settings("run_config", run_config, ())
        node_config = _settings("node_config", node_config, ("partition-id", "num-partitions"))
        self._contexts = {
            _NODE_OFFSET + i: Context(
                run_id=self._run.run_id,
                node_id=_NODE_OFFSET + i,
                node_config={**node_config, "partition-id": i, "num-partitions": num_clients},
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for i in range(num_clients)
        }

    @property
    def num_nodes(self) -> int:
        """How many nodes there are and ever will be."""
        return len(self._contexts)

    def limit_nodes(self, timeout: float | None) -> None:
        """Give every node at most this long for each of the messages pushed from now on."""
        self._timeout = timeout
        self._patience = timeout or 0.0

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
        """Return all nodes; raises RunError where somebody waits for more than there are."""
        now = time.monotonic()
        slow = self._looks and now - self._looks[-1] >= _LOOK_S
        self._looks = [*self._looks, now] if slow else [now]
        if len(self._looks) == _LOOKS:
            self._looks = []
            raise RunError(
                f"the strategy waits for more nodes than the {self.num_nodes} of this grid, to"
                " which none come; lower its min_available_nodes and the like, or raise num_clients"
            )
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run each message at once; one for an unknown node gets the empty identity, unanswered."""
        identities = [self._deliver(message) for message in messages]
        if self._timeout is not None:
            for task in list(self._tasks.values()):
                task.wait(self._timeout)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._answers.pop(i) for i in message_ids if i in self._answers]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run all messages; a node that took longer than the timeout has not answered."""
        before = self._timeout
        self.limit_nodes(timeout)
        self._drops_late = True
        try:
            return self.pull_messages(InProcessGrid.push_messages(self, messages))
        finally:
            self._drops_late = False
            self.limit_nodes(before)

    def _deliver(self, message: Message) -> str:
        """Let a node answer, as long as it may take; return the message's identity."""
        self._looks = []
        node = message.metadata.dst_node_id
        if node not in self._contexts:
            return ""
        identity = _compat.assign_message_id(message)
        work = partial(self._call, self._received(message), node)
        before = self._tasks.get(node)
        if self._timeout is None:
            if before is not None:
                before.wait(None)
            self._keep(identity, math.inf, work(), 0.0)
            return identity
        most = self._timeout if self._drops_late else math.inf
        task = NodeTask(work, self._threads, after=before, then=partial(self._keep, identity, most))
        self._tasks[node] = task
        if (before is None or before.ended) and not task.wait(self._patience):
            self._patience = self._timeout / 10
            warnings.warn(
                f"node {node} has not answered within its {self._timeout:g} s; it goes on beside"
                " the others, who had better share nothing with it",
                FedzoWarning,
                stacklevel=3,
            )
        return identity

    def _keep(self, identity: str, most: float, reply: Message, seconds: float) -> None:
        """Keep an answer to be pulled, unless it took too many seconds."""
        if seconds > most:
            return
        _compat.assign_message_id(reply)
        self._answers[identity] = self._received(reply)

    def _call(self, message: Message, node: int) -> Message:
        """Call the app; the node keeps what the app did to its Context only if it answered."""
        context = copy.copy(self._contexts[node])
        context.state = _copy_records(context.state)
        context.run_config = dict(context.run_config)
        context.node_config = dict(context.node_config)
        try:
            with torch_threads(torch.get_num_threads()):  # whatever the app makes of them
                reply = self._app(message=message, context=context)
            if not isinstance(reply, Message):
                raise TypeError(f"the ClientApp returned {reply!r:.60}, not a Message")
        except BaseException as error:  # what a client raises is its answer, as in Flower
            reason = failure_of(error)
            return Message(Error(code=_compat.CLIENT_RAISED, reason=reason), reply_to=message)
        if node in self._contexts:
            self._contexts[node].state = context.state
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


def _settings(
    what: str, given: Mapping[str, Scalar] | None, taken: tuple[str, ...]
) -> dict[str, Scalar]:
    """Return settings of apps; raises ConfigError for what flwr cannot send, or sets itself."""
    for name, value in (given or {}).items():
        if name in taken:
            raise ConfigError(f"{what} cannot set {name}: it is the number of the node")
        if not isinstance(value, bool | int | float | str):
            raise ConfigError(
                f"{what}[{name!r}]={value!r:.60} must be a string, a number, or true or false"
            )
    return dict(given or {})

"""The only file that touches flwr's private names (flwr 1.38 to 1.4x)."""

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

import numpy as np
from flwr.app import Message, RecordDict
from flwr.app.message.message import make_message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import (
    message_from_proto,
    message_to_proto,
    recorddict_from_proto,
    recorddict_to_proto,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp import ServerApp
from flwr.supercore.run import Run as Run
from flwr.supercore.task_identity import TaskIdentity
from numpy.random import Generator

from fedzo.errors import ConfigError

SUPERLINK_NODE_ID = 1
CLIENT_RAISED: int = ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def ensure_task_identity() -> None:
    """Let `Message()` be made outside a Flower run; an identity set by Flower is left alone."""
    if TaskIdentity._run_id is None:
        TaskIdentity.run_id = 1
    if TaskIdentity._node_id is None:
        TaskIdentity.node_id = SUPERLINK_NODE_ID
    if TaskIdentity._task_id is None:
        TaskIdentity.task_id = 1


def empty_run() -> Run:
    """Return a run without particulars."""
    return Run.create_empty(run_id=TaskIdentity.run_id)


def assign_message_id(message: Message) -> str:
    """Give a message the identity that a SuperLink would give it."""
    identity = uuid4().hex
    message.metadata.__dict__["_message_id"] = identity
    return identity


def message_with(message: Message, content: RecordDict) -> Message:
    """Return another message with the same metadata."""
    return make_message(metadata=message.metadata, content=content)


def message_round_trip(message: Message) -> Message:
    """Send a message through protobuf bytes and back."""
    data = message_to_proto(message).SerializeToString()
    return message_from_proto(ProtoMessage.FromString(data))


def records_round_trip(records: Sequence[RecordDict]) -> list[RecordDict]:
    """Send contents through protobuf bytes and back."""
    encoded = [recorddict_to_proto(record).SerializeToString() for record in records]
    return [recorddict_from_proto(ProtoRecordDict.FromString(data)) for data in encoded]


def wire_size(record: RecordDict) -> int:
    """Return the bytes that a content takes in protobuf."""
    return len(recorddict_to_proto(record).SerializeToString())


def damaged(record: RecordDict, generator: Generator) -> RecordDict | None:
    """Flip a few bytes of a content's protobuf; None when it no longer parses."""
    data = np.frombuffer(recorddict_to_proto(record).SerializeToString(), dtype=np.uint8).copy()
    places = generator.integers(len(data), size=1 + int(generator.integers(4)))
    data[places] ^= generator.integers(1, 256, size=len(places)).astype(np.uint8)
    try:
        return recorddict_from_proto(ProtoRecordDict.FromString(data.tobytes()))
    except Exception:  # whatever a parser says of rubbish: there is no message
        return None


def check_copyable(client_app: ClientApp) -> None:
    """Raise ConfigError unless Ray can copy an app to its actors."""
    from ray.util import inspect_serializability  # imports Ray: only a simulation pays

    report = io.StringIO()
    copyable, failures = inspect_serializability(client_app, print_file=report)
    if not copyable:
        names = ", ".join(sorted({str(failure.name) for failure in failures}))
        raise ConfigError(
            f"the clients' objectives cannot be copied to other processes ({names}); let the"
            " function that makes an objective also make what cannot be copied, such as locks and"
            " connections"
        )


def run_flower_simulation(
    server_app: ServerApp,
    client_app: ClientApp,
    num_nodes: int,
    resources: Mapping[str, int | float],
    pool: Callable[..., Any],
) -> None:
    """Run Flower's simulation engine until the ServerApp returns.

    pool: makes its pool of actors, of what makes Flower's own and of the arguments for that.

    `flwr.simulation.run_simulation` is deprecated in favor of `flwr run`, which cannot be called
    from Python, and is the only entry for objects.
    """
    from flwr.server.superlink.fleet.vce.backend import raybackend
    from flwr.simulation import run_simulation  # imports Ray: a second that only this pays

    backend: Any = raybackend
    usual = backend.BasicActorPool
    backend.BasicActorPool = partial(pool, usual)
    try:
        run_simulation(
            server_app=server_app,
            client_app=client_app,
            num_supernodes=num_nodes,
            backend_config={
                "client_resources": dict(resources),
                "init_args": {
                    "include_dashboard": False,
                    "log_to_driver": False,
                    "logging_level": logging.ERROR,
                },
            },
        )
    finally:
        backend.BasicActorPool = usual

"""The Flower ClientApp of a client that holds an objective.

It answers `train.<rule>` for every rule, `query.value`, `evaluate` and `query.whoami`. A message is
decoded to an exchange of one client, the same local rule runs that serves whole cohorts in
simulation, and the answer is encoded. What a rule remembers lives in the Context's state.
"""

from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.rules import make_rules
from fedzo.errors import ConfigError
from fedzo.exchange import ClientState
from fedzo.messages import decode_exchange, decode_tensors, encode_replies, encode_tensors
from fedzo.objective import Objective
from fedzo.runtime.local import Environment, FunctionEnvironment, serve

STATE = "fedzo"


def build_client_app(
    make_objective: Callable[[int], Objective] | Environment,
) -> ClientApp:
    """Build the app of a client.

    `make_objective(client_id)` returns the objective of this client, whose number is the node's
    `partition-id`; an Environment serves where there is more than one problem or observation noise.
    """
    environment = (
        FunctionEnvironment(make_objective) if callable(make_objective) else make_objective
    )
    rules = make_rules()
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        kind = message.metadata.message_type
        client = _client_id(context)
        exchange = decode_exchange(message.content, kind=kind, client_id=client)
        replies, (after,) = serve(exchange, environment, rules, [_load_state(context)])
        _save_state(context, after)
        return Message(encode_replies(replies)[client], reply_to=message)

    for kind in rules:
        category, _, action = kind.partition(".")
        getattr(app, category)(*([action] if action else []))(answer)

    @app.query("whoami")
    def whoami(message: Message, context: Context) -> Message:
        total = int(context.node_config.get("num-partitions", 0))
        record = ConfigRecord({"partition-id": _client_id(context), "num-partitions": total})
        return Message(RecordDict({"whoami": record}), reply_to=message)

    return app


def _client_id(context: Context) -> int:
    if "partition-id" not in context.node_config:
        raise ConfigError(
            "the node has no partition-id; start it with --node-config 'partition-id=0' (0, 1, ...)"
        )
    return int(context.node_config["partition-id"])


def _load_state(context: Context) -> ClientState:
    record = context.state.get(STATE)
    return decode_tensors(record) if isinstance(record, ArrayRecord) else {}


def _save_state(context: Context, state: ClientState) -> None:
    if state:
        context.state[STATE] = encode_tensors(state)

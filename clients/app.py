"""The Flower ClientApp of a client that holds an objective.

It answers `train.<rule>` for every rule, `query.value`, `evaluate` and `query.whoami`. A message is
decoded to an exchange of one client, the same local rule runs that serves whole cohorts in
simulation, and the answer is encoded. What a rule remembers stays on the client (clients.states).
"""

from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.rules import make_rules
from clients.states import load_states, moment_of, save_states, state_file
from fedzo.errors import ConfigError
from fedzo.messages import decode_exchange, encode_replies, exchange_token
from fedzo.objective import Objective
from fedzo.runtime.device import on_device
from fedzo.runtime.engine_configs import DeviceName
from fedzo.runtime.local import Environment, FunctionEnvironment, serve


def build_client_app(
    make_objective: Callable[[int], Objective] | Environment, *, state_dir: Path | None = None
) -> ClientApp:
    """Build the app of a client.

    `make_objective(client_id)` returns the objective of this client, whose number is the node's
    `partition-id`; an Environment serves where there is more than one problem or observation noise.
    What rules remember is also written to `state_dir`, or to the node's `state-dir` if it has one:
    then it survives the node.
    """
    environment = (
        FunctionEnvironment(make_objective) if callable(make_objective) else make_objective
    )
    return build_app(lambda _: environment, state_dir=state_dir)


def build_app(
    environment_of: Callable[[Context], Environment], *, state_dir: Path | None = None
) -> ClientApp:
    """Build the app of a client whose objectives depend on its node's and the run's config.

    A `device` in the node's config (auto, cpu, cuda) says where objectives are evaluated.
    """
    rules = make_rules()
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        kind = message.metadata.message_type
        client = _client_id(context)
        exchange = decode_exchange(message.content, kind=kind, client_id=client)
        run = _run_name(message)
        directory = context.node_config.get("state-dir") or state_dir
        file = state_file(str(directory), run, client) if directory else None
        states, now = load_states(context.state, run, file), moment_of(exchange.config)
        before = states.before(now)
        environment = on_device(environment_of(context), _device(context))
        replies, (after,) = serve(exchange, environment, rules, [before])
        if after is not before:
            save_states(context.state, states.after(now, after), file)
        answers = encode_replies(replies, token=exchange_token(exchange))
        return Message(answers[client], reply_to=message)

    for kind in rules:
        category, _, action = kind.partition(".")
        getattr(app, category)(*([action] if action else []))(answer)

    @app.query("whoami")
    def whoami(message: Message, context: Context) -> Message:
        total = int(context.node_config.get("num-partitions", 0))
        record = ConfigRecord({"partition-id": _client_id(context), "num-partitions": total})
        return Message(RecordDict({"whoami": record}), reply_to=message)

    return app


def _device(context: Context) -> DeviceName:
    name = context.node_config.get("device", "cpu")
    if name not in get_args(DeviceName):
        raise ConfigError(f"the node's device={name!r} must be auto, cpu or cuda")
    return cast(DeviceName, name)


def _client_id(context: Context) -> int:
    if "partition-id" not in context.node_config:
        raise ConfigError(
            "the node has no partition-id; start it with --node-config 'partition-id=0' (0, 1, ...)"
        )
    return int(context.node_config["partition-id"])


def _run_name(message: Message) -> str:
    record = message.content.get("run")
    return str(record.get("name", "")) if isinstance(record, ConfigRecord) else ""

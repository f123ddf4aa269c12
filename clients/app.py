"""The Flower ClientApp of a client that holds an objective.

It answers every question that it has a rule for, and `query.whoami`. A message is
decoded to an exchange of one client, the same local rule runs that serves whole cohorts in
simulation, and the answer is encoded. What a rule remembers stays on the client (clients.states).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.rules import make_rules
from clients.states import load_states, save_states, state_file
from fedzo.errors import ConfigError, FedzoWarning
from fedzo.objectives.objective import Objective
from fedzo.privacy.averages import NOT_AVERAGED
from fedzo.protocol.messages import decode_exchange, encode_replies, moment_of
from fedzo.protocol.question import Question
from fedzo.runtime.device import on_device
from fedzo.runtime.engine_configs import DeviceName
from fedzo.runtime.local import Environment, FunctionEnvironment, Rules, serve
from fedzo.runtime.threads import torch_threads


def build_client_app(
    make_objective: Callable[[int], Objective] | Environment,
    *,
    state_dir: Path | None = None,
    device: DeviceName = "cpu",
    rules: Rules | None = None,
) -> ClientApp:
    """Build the app of a client.

    `make_objective(client_id)` returns the objective of this client, whose number is the node's
    `partition-id`; an Environment serves where there is more than one problem or observation noise.
    What rules remember is also written to `state_dir`, or to the node's `state-dir` if it has one:
    then it survives the node. Objectives are evaluated on `device`, or on the device that the
    node's config names. `rules` answer questions: those of `clients.make_rules()` and your own.
    """
    environment = (
        FunctionEnvironment(make_objective) if callable(make_objective) else make_objective
    )
    return build_app(_Always(environment), state_dir=state_dir, device=device, rules=rules)


def build_app(
    environment_of: Callable[[Context], Environment],
    *,
    state_dir: Path | None = None,
    device: DeviceName = "cpu",
    rules: Rules | None = None,
) -> ClientApp:
    """Build the app of a client whose objectives depend on its node's and the run's config.

    A `device` in the node's config (auto, cpu, cuda) says where objectives are evaluated; `threads`
    with how many threads of torch, one as on every engine.
    """
    node = _Node(environment_of, state_dir, device, rules or make_rules())
    app = ClientApp()
    for kind in node.questions:
        category, _, action = kind.partition(".")
        getattr(app, category)(*([action] if action else []))(node.answer)
    app.query("whoami")(node.whoami)
    return app


@dataclass(frozen=True, slots=True)
class _Always:
    """The same environment on every node; a class, not a closure, so that Ray can copy it."""

    environment: Environment

    def __call__(self, context: Context) -> Environment:
        return self.environment


@dataclass(frozen=True, slots=True)
class _Node:
    """What a node does with a message."""

    environment_of: Callable[[Context], Environment]
    state_dir: Path | None
    device: DeviceName
    rules: Rules

    @property
    def questions(self) -> dict[str, type[Question[Any]]]:
        """The questions that have a rule, by the type of their messages."""
        return {question.kind: question for question in self.rules}

    def answer(self, message: Message, context: Context) -> Message:
        """Decode an exchange, run the rule on it, remember, and encode the answer."""
        kind, client = message.metadata.message_type, _client_id(context)
        run, attempt = _run_of(message)
        directory = context.node_config.get("state-dir") or self.state_dir
        file = state_file(str(directory), run, client) if directory else None
        states, now = load_states(context.state, run, file), moment_of(message.content)
        before = states.before(now)
        asked = self.questions[kind]
        exchange = decode_exchange(message.content, asked, client_id=client, state=before)
        with torch_threads(_threads(context)):
            environment = on_device(self.environment_of(context), _device(context, self.device))
            try:
                replies, (after,) = serve(exchange, environment, self.rules, [before])
            except ConfigError as error:
                if not str(error).startswith(NOT_AVERAGED):
                    raise
                warnings.warn(str(error), FedzoWarning, stacklevel=2)
                raise ConfigError(NOT_AVERAGED) from None  # by how much is not told to the server
        after = {**after, **exchange.views} if exchange.down else after
        if after is not before:
            save_states(context.state, states.after(now, attempt, after), file)
        answers = encode_replies(replies, token=exchange.moment.token)
        return Message(answers[client], reply_to=message)

    def whoami(self, message: Message, context: Context) -> Message:
        """Say which client this is, and of how many."""
        total = int(context.node_config.get("num-partitions", 0))
        record = ConfigRecord({"partition-id": _client_id(context), "num-partitions": total})
        return Message(RecordDict({"whoami": record}), reply_to=message)


def _device(context: Context, default: DeviceName) -> DeviceName:
    name = context.node_config.get("device", default)
    if name not in get_args(DeviceName):
        raise ConfigError(f"the node's device={name!r} must be auto, cpu or cuda")
    return cast(DeviceName, name)


def _threads(context: Context) -> int:
    told = context.node_config.get("threads", 1)
    if type(told) is not int or told < 1:
        raise ConfigError(f"the node's threads={told!r} must be a whole number of 1 or more")
    return told


def _client_id(context: Context) -> int:
    if "partition-id" not in context.node_config:
        raise ConfigError(
            "the node has no partition-id; start it with --node-config 'partition-id=0' (0, 1, ...)"
        )
    return int(context.node_config["partition-id"])


def _run_of(message: Message) -> tuple[str, str]:
    """Return the name of the run that asks, and of its attempt."""
    record = message.content["run"]
    assert isinstance(record, ConfigRecord)
    return str(record.get("name", "")), str(record.get("attempt", ""))

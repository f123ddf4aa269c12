"""MoNNA: nodes without a server's model, each averaging with its nearest neighbors.

    m_i <- beta m_i + (1 - beta) g_i;   half_i = x_i - lr m_i           (clients.averaging.momentum)
    each node hears half steps of others and mixes: x_i <- NNA(half_i, heard) (clients.peers.mixing)

Farhadkhani, Guerraoui, Gupta, Hoang, Pinot & Stephan, "Robust Collaborative Learning with Linear
Gradient Overhead", ICML 2023, algorithm 1. The server is only a relay: it holds no model, and what
it says of x is a summary, the coordinate-wise median of the models that nodes have reported. F and
metrics are means over the honest nodes' own models; `disagreement` is their root mean square
distance from their mean. Shapes: models [n, d]. Sent a node and round: d up for the half step, d
more up for the result of every mixing but the last, and of the last where it is judged; down k d
for k models.

Each node waits for n - f of the n half steps, its own included (`received = "quorum"`), or for all
of them; with num_byzantine = f it then averages all but f of those that it heard, so n - 2f or
n - f. Which it hears is drawn. With a graph it hears only its neighbors. Differs from the paper:
any rule of fedzo.aggregation may mix, on any graph, several times a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import networkx as nx
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedzo.aggregation import median
from fedzo.aggregation.distances import squared_distances
from fedzo.aggregation.nearest_neighbors import mixed, neighbor_weights
from fedzo.aggregation.rows import finite_rows
from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.parts import composed, part
from fedzo.protocol.questions.peers import Mix, Model, OwnModel
from fedzo.protocol.questions.training_config import MomentumConfig
from fedzo.randomness import stream
from fedzo.used_with import UsedWith, above
from strategies.core.asking import Asked, Heard, ask, ask_together
from strategies.core.configured import ConfiguredStrategy
from strategies.core.robust import RobustConfig
from strategies.core.rounds import Round, RoundConfig, RoundPlan, TooFewAnswers
from strategies.core.step_config import FallingConfig
from strategies.peers.graphs import parse_graph


@composed
class MoNNAConfig:
    """Settings of MoNNA.

    local_lr: of each node's momentum. mixings: exchanges of models a round.
    received: whether a node waits for n - num_byzantine models or for all. graph: who hears whom,
    see strategies.peers.graphs.
    """

    rounds: RoundConfig = part(RoundConfig)
    robust: RobustConfig = part(RobustConfig, aggregator="nearest_neighbor_average")
    local: FallingConfig = part(FallingConfig, local_steps=1, local_lr=0.1)
    mixings: int = 1
    received: Literal["quorum", "all"] = "quorum"
    graph: str = "complete"
    USED_WITH: ClassVar[UsedWith] = {
        "received": above("num_byzantine", 0),
    }

    def __post_init__(self) -> None:
        require(self.mixings >= 1, "mixings", self.mixings, "at least 1")
        parse_graph(self.graph)


@dataclass(frozen=True, slots=True)
class MoNNAState:
    """The models that nodes reported last, whose they are, who has begun, and who hears whom."""

    clients: Int[Tensor, " k"]
    models: Float[Tensor, "m d"]
    begun: Int[Tensor, " b"]
    start: Float[Tensor, " d"]
    neighbors: Bool[Tensor, "n n"]

    @property
    def x(self) -> Float[Tensor, " d"]:
        """A model that stands for all: the coordinate-wise median of those that are finite."""
        finite = finite_rows(self.models)
        return median(self.models[finite]) if finite.any() else self.models[0]


class MoNNA(ConfiguredStrategy[MoNNAConfig, MomentumConfig, MoNNAState]):
    """Peers that step along their momentum and mix; `graph` may be a graph of networkx."""

    own_models = True
    client_config = MomentumConfig

    def __init__(
        self,
        config: MoNNAConfig,
        *,
        client: MomentumConfig | None = None,
        graph: nx.Graph | None = None,
    ) -> None:
        super().__init__(config, client=client)
        self._graph = graph

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> MoNNAState:
        graph = self._graph or parse_graph(self._config.graph)(num_clients)
        near = _adjacency(graph, num_clients)
        self._require_heard(self._quota(near), ConfigError)
        nobody = torch.empty(0, dtype=torch.int64)
        return MoNNAState(nobody, x.unsqueeze(0), begun=nobody, start=x, neighbors=near)

    def round(self, state: MoNNAState, plan: RoundPlan) -> Round[MoNNAState]:
        config = self._config
        heard = yield from ask_together(self._training(state, plan))
        begun = torch.cat([state.begun, torch.as_tensor(heard.clients)]).unique()
        state = replace(state, begun=begun)
        for mixing in range(config.mixings):
            report = plan.judged or mixing + 1 < config.mixings
            heard = yield from ask(self._mixing(state, heard, plan, mixing, report), heard.clients)
            if not report:
                return state
        return replace(state, clients=torch.as_tensor(heard.clients), models=heard.said.model)

    def defended(self, vectors: Float[Tensor, "n d"], *, num_liars: int) -> Float[Tensor, "h d"]:
        return known_mixing(self._config, vectors, num_liars=num_liars)

    def _training(self, state: MoNNAState, plan: RoundPlan) -> list[Asked[Model]]:
        """Return one question for nodes that have a model and one for those that need the start."""
        begun = set(state.begun.tolist())
        groups = {
            True: [client for client in plan.cohort if client in begun],
            False: [client for client in plan.cohort if client not in begun],
        }
        return [
            (
                OwnModel(
                    x=None if has_model else state.start,
                    settings=self._client,
                    **self._config.local.told(plan.round_index),
                    dim=len(state.start),
                ),
                clients,
            )
            for has_model, clients in groups.items()
        ]

    def _mixing(
        self, state: MoNNAState, told: Heard[Model], plan: RoundPlan, mixing: int, report: bool
    ) -> Mix:
        clients = torch.as_tensor(told.clients)
        heard = self._heard(state.neighbors, clients, plan, mixing)
        return Mix(
            models=told.said.model,
            heard=heard.to(torch.uint8),
            own=torch.arange(len(clients)),
            aggregator=self.robust.aggregator,
            num_byzantine=self.robust.num_byzantine,
            report=report,
        )

    def _heard(
        self, near: Bool[Tensor, "n n"], clients: Int[Tensor, " k"], plan: RoundPlan, mixing: int
    ) -> Bool[Tensor, "k k"]:
        """Return which of the senders each of them has heard in time, itself among them."""
        quota = self._quota(near)[clients]
        near = near[clients][:, clients]
        generator = stream(plan.seed, "heard", plan.problem, plan.round_index, mixing)
        turn = torch.from_numpy(generator.random(near.shape)).where(near, torch.inf)
        turn.fill_diagonal_(-1)
        ranks = turn.argsort(dim=1, stable=True).argsort(dim=1)
        wanted = quota.minimum(near.sum(dim=1))
        self._require_heard(wanted, TooFewAnswers)
        return ranks < wanted.unsqueeze(1)

    def _quota(self, near: Bool[Tensor, "n n"]) -> Int[Tensor, " n"]:
        """Return for how many models each node waits."""
        late = self.robust.num_byzantine if self._config.received == "quorum" else 0
        return near.sum(dim=1) - late

    def _require_heard(
        self, heard: Int[Tensor, " k"], error: type[ConfigError] | type[TooFewAnswers]
    ) -> None:
        """Raise unless every node hears more than twice as many as may lie."""
        fewest = int(heard.min())
        try:
            self.robust.rule.require(fewest, self.robust.num_byzantine)
        except ConfigError as reason:
            late = "" if self._config.received == "all" else " (received=all waits for everybody)"
            raise error(f"a node hears {fewest} models, its own included{late}: {reason}") from None


def known_mixing(
    config: MoNNAConfig, vectors: Float[Tensor, "n d"], *, num_liars: int
) -> Float[Tensor, "h d"]:
    """Return what each honest node makes of all vectors, as an attacker would guess it.

    It does not know which honest ones a node hears, so it lets every node hear all of them and keep
    as many as it keeps of a quorum.
    """
    f, honest = config.robust.num_byzantine, len(vectors) - num_liars
    late = f if config.received == "quorum" else 0
    if config.robust.aggregator == "nearest_neighbor_average":
        squares = squared_distances(vectors).fill_diagonal_(-1)[:honest]
        return mixed(neighbor_weights(squares, max(1, len(vectors) - late - f)), vectors)
    generator = stream(0, "attacker's guess")
    rows = []
    for own in range(honest):
        others = [i for i in range(len(vectors)) if i != own][late:]
        heard = torch.cat([vectors[own : own + 1], vectors[others]])
        rule = config.robust.rule
        rows.append(rule(heard, num_byzantine=f, generator=generator, start=vectors[own]))
    return torch.stack(rows)


def _adjacency(graph: nx.Graph, num_clients: int) -> Bool[Tensor, "n n"]:
    """Return who hears whom, itself included; raises ConfigError unless nodes are 0 to n - 1."""
    if set(graph.nodes) != set(range(num_clients)):
        raise ConfigError(
            f"the graph has {len(graph)} nodes; it needs the nodes 0 to {num_clients - 1}, one for"
            " each client"
        )
    order: Sequence[int] = range(num_clients)
    matrix = nx.to_numpy_array(graph, nodelist=order, weight=None)
    return torch.from_numpy(matrix != 0).fill_diagonal_(True)

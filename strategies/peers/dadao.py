"""DADAO: accelerated decentralized optimization whose gradients and messages do not wait.

    between events   dx = eta (x~ - x)            dx~ = eta (x - x~)
                     dy = alpha (y~ - y)          dy~ = -theta (y + z + nu x~)
                     dz = alpha (z~ - z)          dz~ = alpha~ (z - z~)
    a gradient at i  r = grad f_i(x_i) - nu x_i - y~_i
                     x_i -= gamma r;  x~_i -= gamma~ r;  y~_i += (delta + delta~) r
    a message on ij  m = y_i + z_i - y_j - z_j
                     z_i -= beta m;  z_j += beta m;  z~_i -= beta~ m;  z~_j += beta~ m

Nabli & Oyallon, "DADAO: Decoupled Accelerated Decentralized Asynchronous Optimization", ICML 2023,
algorithm 1; f_i is mu-strongly convex and L-smooth, nu = mu / 2. Gradients come once a unit of time
at each node, messages sqrt(2 chi_1 chi_2) times a unit on edges of the graph, both by Poisson; a
round is `period` units. The events of a round do not depend on what is computed, so all the flows
between them are one batch of matrix exponentials (the matrix can be defective: no eigenvectors),
and gradients of nodes that have not met since are asked at once.

Shapes: six vectors of each node [n, 6, d], in float64, which the server keeps for them. Cost: n
gradients a unit of time. Counted as sent: a point down and a gradient up for each; what peers would
tell each other, 2 d floats a message on an edge, is the metric peer_floats. Sum z = sum z~ = 0 at
the end of every round. Nodes leave the box of x, and are told projected onto it, as x is. Differs
from the paper: nodes begin at x.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from numpy.typing import NDArray
from torch import Tensor

from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.objectives.oracle import project
from fedzo.parts import composed, part
from fedzo.protocol.questions.peers import PeerConfig, PeerGradient
from fedzo.randomness import stream
from strategies.core.asking import Asking, ask
from strategies.core.configured import ConfiguredStrategy
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.peers.graphs import parse_graph

_MOST = 1_000_000
"""Events of a round, on average."""


@composed
class DADAOConfig:
    """Settings of DADAO.

    strong_convexity, smoothness: mu and L of the clients' objectives, by which all rates are set;
    too small an L diverges. period: units of time a round, in each of which every node takes one
    gradient, on average. graph: between whom messages go, connected, see strategies.peers.graphs.
    communications: so many times the paper's rate of messages; a quarter diverges.
    """

    base: RoundConfig = part(RoundConfig)
    strong_convexity: float = 1.0
    smoothness: float = 10.0
    period: float = 1.0
    graph: str = "complete"
    communications: float = 1.0

    def __post_init__(self) -> None:
        least, most = self.strong_convexity, self.smoothness
        require(0 < least < math.inf, "strong_convexity", least, "positive and finite")
        require(least <= most < math.inf, "smoothness", most, f"at least {least:g}, and finite")
        for name in ("period", "communications"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "positive and finite")
        share = self.base.participation
        require(share == 1, "participation", share, "1: nodes take gradients by their own clocks")
        parse_graph(self.graph)


@dataclass(frozen=True, slots=True)
class Network:
    """Edges, and the constants of a connected graph: chi_1 and the rate of messages."""

    edges: NDArray[np.int64]
    chi: float
    rate: float


@dataclass(frozen=True, slots=True)
class DADAOState:
    """All nodes at one time: x, x~, y, y~, z, z~ of each, and how much they have told peers.

    box: the lower and the upper end of each number of x, where there are any.
    """

    nodes: Float64[Tensor, "n 6 d"]
    like: Float[Tensor, " d"]
    told: int
    box: Float[Tensor, "b k"] = field(default_factory=lambda: torch.zeros(0, 0))

    @property
    def x(self) -> Float[Tensor, " d"]:
        """The mean of the nodes' models."""
        return self._inside(self.nodes[:, 0].mean(0))

    @property
    def clients(self) -> Int[Tensor, " n"]:
        """The nodes."""
        return torch.arange(len(self.nodes))

    @property
    def models(self) -> Float[Tensor, "n d"]:
        """Each node's x."""
        return self._inside(self.nodes[:, 0])

    def _inside(self, models: Float64[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        return project(models.to(self.like), *self.box) if len(self.box) else models.to(self.like)

    @property
    def report(self) -> Mapping[str, float]:
        """What peers would have sent to each other so far."""
        return {"peer_floats": float(self.told)}


@dataclass(frozen=True, slots=True)
class Events:
    """The events of a round in order of time: one node's gradient, or a message on an edge.

    first, second: the nodes [e], second -1 for a gradient; level: after how many others an event
    must come; since: time since the last event of first and of second [e, 2].
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    level: NDArray[np.int64]
    since: NDArray[np.float64]
    rest: NDArray[np.float64]


class DADAO(ConfiguredStrategy[DADAOConfig, PeerConfig, DADAOState]):
    """Nodes that take gradients and tell their neighbors, each by a clock of its own."""

    own_models = True
    client_config = PeerConfig

    def init(self, x: Float[Tensor, " d"], num_clients: int) -> DADAOState:
        config = self._config
        rate = config.communications * network(config.graph, num_clients).rate
        events = config.period * (num_clients + rate)
        require(events <= _MOST, "period", config.period, f"such that a round has {_MOST:,} events")
        nodes = torch.zeros(num_clients, 6, len(x), dtype=torch.float64)
        nodes[:, :2] = x.double()
        return DADAOState(nodes, x, 0)

    def round(self, state: DADAOState, plan: RoundPlan) -> Round[DADAOState]:
        config, n = self._config, plan.num_clients
        peers, rates = network(config.graph, n), self._rates(n)
        messages = config.communications * peers.rate
        generator = stream(plan.seed, "dadao", plan.problem, plan.round_index)
        events = drawn(n, peers.edges, messages, config.period, generator)
        flows = torch.matrix_exp(rates.flow * torch.from_numpy(events.since)[..., None, None])
        nodes = state.nodes.clone()
        for level in range(int(events.level.max(initial=-1)) + 1):
            now = np.flatnonzero(events.level == level)
            yield from self._level(nodes, events, flows, now, rates, state.like)
        last = torch.matrix_exp(rates.flow * torch.from_numpy(events.rest)[:, None, None])
        told = state.told + 2 * int((events.second >= 0).sum()) * nodes.shape[2]
        ends = [torch.as_tensor(end).to(state.like) for end in (plan.lower, plan.upper)]
        box = torch.stack([end.expand_as(state.like) for end in ends])
        return replace(state, nodes=last @ nodes, told=told, box=box)

    def _level(
        self,
        nodes: Float64[Tensor, "n 6 d"],
        events: Events,
        flows: Float64[Tensor, "e 2 6 6"],
        now: NDArray[np.int64],
        rates: "Rates",
        like: Float[Tensor, " d"],
    ) -> Asking[None]:
        """Let these events happen to the nodes, no two of which meet; points are as `like`."""
        alone = now[events.second[now] < 0]
        pairs = now[events.second[now] >= 0]
        if len(alone):
            alone = alone[np.argsort(events.first[alone])]
            ids = events.first[alone]
            nodes[ids] = flows[alone, 0] @ nodes[ids]
            question = PeerGradient(point=nodes[ids, 0].to(like))
            heard = yield from ask(question, ids.tolist(), optional=True)
            if len(heard):
                rates.descend_(nodes, torch.tensor(heard.clients), heard.said.gradient)
        if len(pairs):
            one, two = events.first[pairs], events.second[pairs]
            nodes[one] = flows[pairs, 0] @ nodes[one]
            nodes[two] = flows[pairs, 1] @ nodes[two]
            rates.tell_(nodes, one, two)

    def _rates(self, num_clients: int) -> "Rates":
        config, peers = self._config, network(self._config.graph, num_clients)
        return Rates(config.strong_convexity / 2, config.smoothness, peers.chi / peers.rate)


@dataclass(frozen=True, slots=True)
class Rates:
    """The paper's constants. nu: half the strong convexity; smoothness: L; chi: chi_1 / rate."""

    nu: float
    smoothness: float
    chi: float

    @property
    def speed(self) -> float:
        """sqrt(nu / L), the rate of everything."""
        return math.sqrt(self.nu / self.smoothness)

    @property
    def flow(self) -> Float64[Tensor, "6 6"]:
        """The matrix of the flow of x, x~, y, y~, z, z~."""
        s = self.speed
        eta, alpha, faster, theta = s / 8, s / 4, s / 8, 1 / (2 * s)
        rows = [
            [-eta, eta, 0, 0, 0, 0],
            [eta, -eta, 0, 0, 0, 0],
            [0, 0, -alpha, alpha, 0, 0],
            [0, -theta * self.nu, -theta, 0, -theta, 0],
            [0, 0, 0, 0, -alpha, alpha],
            [0, 0, 0, 0, faster, -faster],
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def descend_(
        self,
        nodes: Float64[Tensor, "n 6 d"],
        who: Int[Tensor, " k"],
        gradient: Float[Tensor, "k d"],
    ) -> None:
        """Let these nodes take their gradients."""
        s, x, y = self.speed, nodes[who, 0], nodes[who, 3]
        r = gradient.double() - self.nu * x - y
        nodes[who, 0] -= r / (4 * self.smoothness)
        nodes[who, 1] -= r / (4 * math.sqrt(self.smoothness * self.nu))
        nodes[who, 3] += (s / 4 + 1) * r

    def tell_(
        self, nodes: Float64[Tensor, "n 6 d"], one: NDArray[np.int64], two: NDArray[np.int64]
    ) -> None:
        """Let pairs of nodes tell each other what they have."""
        m = nodes[one, 2] + nodes[one, 4] - nodes[two, 2] - nodes[two, 4]
        faster = 2 * self.chi / self.speed
        nodes[one, 4] -= m / 2
        nodes[two, 4] += m / 2
        nodes[one, 5] -= faster * m
        nodes[two, 5] += faster * m


@lru_cache(maxsize=8)
def network(text: str, num_clients: int) -> Network:
    """Return a graph's edges and constants; raises ConfigError where it is not connected.

    With edges drawn uniformly, Lbar = Laplacian / edges: chi_1 = 1 / lambda_2(Lbar), chi_2 half the
    largest effective resistance of an edge in it.
    """
    require(num_clients >= 2, "clients", num_clients, "at least 2: nodes tell each other")
    graph = parse_graph(text)(num_clients)
    if not nx.is_connected(graph):
        raise ConfigError(f"strategy.graph={text} is not connected, so nodes could not agree")
    edges = np.asarray(sorted(tuple(sorted(edge)) for edge in graph.edges), dtype=np.int64)
    laplacian = nx.laplacian_matrix(graph, nodelist=range(num_clients)).toarray() / len(edges)
    chi = 1 / float(np.linalg.eigvalsh(laplacian)[1])
    inverse = np.linalg.pinv(laplacian)
    one, two = edges.T
    resistance = inverse[one, one] + inverse[two, two] - 2 * inverse[one, two]
    return Network(edges, chi, math.sqrt(2 * chi * float(resistance.max()) / 2))


def drawn(
    nodes: int,
    edges: NDArray[np.int64],
    messages: float,
    period: float,
    generator: np.random.Generator,
) -> Events:
    """Return the events of a period: `nodes` gradients a unit of time, and so many messages."""
    counts = generator.poisson([nodes * period, messages * period])
    ends = generator.integers(nodes, size=counts[0])
    pairs = edges[generator.integers(len(edges), size=counts[1])]
    both = np.concatenate([np.stack([ends, np.full_like(ends, -1)], axis=1), pairs])
    times = generator.random(len(both)) * period
    order = np.argsort(times, kind="stable")
    both, times = both[order], times[order]
    level = np.zeros(len(both), dtype=np.int64)
    since = np.zeros((len(both), 2))
    last, depth = np.zeros(nodes), np.full(nodes, -1, dtype=np.int64)
    for event, ((one, two), time) in enumerate(zip(both.tolist(), times.tolist(), strict=True)):
        met = [one] if two < 0 else [one, two]
        level[event] = 1 + depth[met].max()
        since[event, : len(met)] = time - last[met]
        last[met], depth[met] = time, level[event]
    return Events(both[:, 0], both[:, 1], level, since, period - last)

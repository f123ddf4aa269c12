"""DADAO: the rate of its theorem, divergence below it, and what stays zero."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.protocol.exchange import Replies
from fedzo.randomness import stream
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from strategies.core.rounds import RoundPlan
from strategies.peers.dadao import DADAO, DADAOConfig, DADAOState, drawn, network

NODES, DIM = 16, 5


class Squares:
    """Least squares with curvatures from 1/kappa to 1 along each node's own axes."""

    def __init__(self, kappa: float, seed: int = 0) -> None:
        generator = stream(seed, "squares")
        axes = [np.linalg.qr(generator.standard_normal((DIM, DIM)))[0] for _ in range(NODES)]
        curves = np.diag(np.linspace(1 / kappa, 1, DIM))
        self.hessians = torch.from_numpy(np.stack([q @ curves @ q.T for q in axes]))
        self.centers = torch.from_numpy(generator.standard_normal((NODES, DIM)))
        pull = torch.einsum("nij,nj->i", self.hessians, self.centers)
        self.optimum = torch.linalg.solve(self.hessians.sum(0), pull)

    def gradients(self, ids: list[int], points: Tensor) -> Tensor:
        return torch.einsum("nij,nj->ni", self.hessians[ids], points - self.centers[ids])

    def played(self, strategy: DADAO, state: DADAOState, plan: RoundPlan) -> DADAOState:
        """Return the state after a round whose gradients these squares answer."""
        steps = strategy.round(state, plan)
        wanted = next(steps)
        try:
            while True:
                [exchange] = wanted  # type: ignore[misc]
                ids = list(exchange.client_ids)
                assert ids == sorted(set(ids))
                told = {"gradient": self.gradients(ids, exchange.question.point)}  # type: ignore[attr-defined]
                wanted = steps.send([Replies(client_ids=ids, tensors=told)])
        except StopIteration as end:
            result: DADAOState = end.value
            return result

    def run(self, rounds: int, *, kappa: float, **more: Any) -> tuple[DADAOState, list[float]]:
        config = DADAOConfig(strong_convexity=1 / kappa, smoothness=1.0, **more)
        strategy = DADAO(config)
        state = strategy.init(torch.zeros(DIM, dtype=torch.float64), NODES)
        errors = []
        for now in range(1, rounds + 1):
            plan = RoundPlan(round_index=now, num_clients=NODES, cohort=range(NODES), seed=0)
            state = self.played(strategy, state, plan)
            errors.append(float((state.models - self.optimum).square().sum(1).mean()))
        return state, errors


def slope(errors: list[float]) -> float:
    """Return the slope of the error's logarithm a unit of time, without the first quarter."""
    first = len(errors) // 4
    return float(np.polyfit(np.arange(first, len(errors)), np.log(errors[first:]), 1)[0])


@pytest.mark.slow
def test_the_rate_is_that_of_the_square_root_of_the_condition() -> None:
    """Slope = -c sqrt(mu / (2 L)) with one c for kappa = 4, 16, 64."""
    found = []
    for kappa, rounds in ((4.0, 150), (16.0, 300), (64.0, 600)):
        _, errors = Squares(kappa).run(rounds, kappa=kappa, graph="ring")
        found.append(slope(errors) / (1 / (2 * kappa)) ** 0.5)
    assert all(-0.24 < each < -0.18 for each in found), found
    assert max(found) / min(found) > 1 / 1.1


@pytest.mark.more
@pytest.mark.parametrize("graph", ["ring", "torus", "complete"])
def test_nodes_come_to_the_common_optimum(graph: str) -> None:
    state, errors = Squares(7.4).run(60, kappa=7.4, graph=graph)
    assert errors[-1] < 0.05 * errors[0]
    assert slope(errors) < -0.16 * (1 / 14.8) ** 0.5
    assert state.told > 0


def test_it_diverges_with_too_few_messages() -> None:
    _, errors = Squares(7.4).run(60, kappa=7.4, graph="ring", communications=0.25)
    assert errors[-1] > 1e6 * errors[0]


def test_what_nodes_owe_each_other_is_nothing() -> None:
    state, _ = Squares(7.4).run(20, kappa=7.4, graph="ring")
    scale = float(state.nodes.abs().max())
    assert float(state.nodes[:, 4].sum(0).abs().max()) < 1e-12 * scale
    assert float(state.nodes[:, 5].sum(0).abs().max()) < 1e-12 * scale
    assert float(state.nodes[:, 4].abs().max()) > 1e-3


def test_at_the_optimum_nothing_moves() -> None:
    """y~ = grad f_i - nu x and z = -(y + nu x) there, so r and every message are 0."""
    world, kappa = Squares(4.0), 4.0
    nu = 1 / kappa / 2
    x = world.optimum.expand(NODES, -1)
    y = world.gradients(list(range(NODES)), x) - nu * x
    z = -(y + nu * x)
    nodes = torch.stack([x, x, y, y, z, z], dim=1)
    strategy = DADAO(DADAOConfig(strong_convexity=1 / kappa, smoothness=1.0, graph="ring"))
    state = DADAOState(nodes, torch.zeros(DIM, dtype=torch.float64), 0)
    plan = RoundPlan(round_index=1, num_clients=NODES, cohort=range(NODES), seed=0)
    after = world.played(strategy, state, plan)
    torch.testing.assert_close(after.nodes, nodes, rtol=0, atol=1e-12)


def test_events_are_poisson_and_their_levels_are_apart() -> None:
    peers = network("ring", 10)
    counts = []
    for seed in range(200):
        events = drawn(10, peers.edges, peers.rate, 2.0, stream(seed, "events"))
        again = drawn(10, peers.edges, peers.rate, 2.0, stream(seed, "events"))
        assert np.array_equal(events.first, again.first)
        assert np.array_equal(events.since, again.since)
        counts.append([(events.second < 0).sum(), (events.second >= 0).sum()])
        for level in range(int(events.level.max()) + 1):
            now = events.level == level
            nodes = np.concatenate([events.first[now], events.second[now]])
            nodes = nodes[nodes >= 0]
            assert len(set(nodes.tolist())) == len(nodes), "no two events of a level meet"
    means = np.mean(counts, axis=0)
    for mean, rate in zip(means, (20, 2 * peers.rate), strict=True):
        assert abs(mean - rate) < 5 * (rate / 200) ** 0.5


def test_constants_of_known_graphs() -> None:
    """Complete graph of n: Lbar = (n I - 1 1^T) / edges, so chi_1 = chi_2 = edges / n."""
    peers = network("complete", 8)
    assert peers.chi == pytest.approx(28 / 8)
    assert peers.rate == pytest.approx((2 * 3.5 * 3.5) ** 0.5)


def test_the_command_and_a_failing_node() -> None:
    settings = {"scenario.dim": 12, "strategy.graph": "ring"}
    made = make_experiment("quadratic", "dadao", num_rounds=40, num_clients=6, settings=settings)
    run = simulate(made)
    assert run.records[-1].value < 0.3 * run.records[0].value  # type: ignore[operator]
    assert run.records[-1].metrics["peer_floats"] > 0
    faulty = make_experiment(
        "quadratic",
        "dadao",
        num_rounds=40,
        num_clients=6,
        settings={**settings, "faults.crash": 0.2},
    )
    lossy = simulate(faulty)
    assert any(record.failures for record in lossy.records)
    assert lossy.records[-1].value < lossy.records[0].value  # type: ignore[operator]


def test_models_in_float32_are_trained() -> None:
    run = simulate(make_experiment("regression", "dadao", num_rounds=10, num_clients=4))
    assert run.x.dtype == torch.float32
    assert run.records[-1].value < run.records[0].value  # type: ignore[operator]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"strategy.smoothness": 0.5}, "smoothness=0.5 must be at least 1"),
        ({"strategy.graph": "erdos_renyi(p=0.0)"}, "is not connected"),
        ({"strategy.participation": 0.5}, "participation=0.5 must be 1"),
        ({"fleet.preset": "silo"}, "fleet.preset is refused: events have times of their own"),
        ({"strategy.graph": "star"}, "graph"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        simulate(make_experiment("quadratic", "dadao", num_rounds=1, settings=settings))

"""MoNNA: nodes with models of their own."""

from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from worlds import clients_of

from clients.averaging.momentum import MODEL
from clients.peers.mixing import mix_models
from clients.rules import make_rules
from fedzo.aggregation import nearest_neighbor_average, nearest_neighbor_mixing
from fedzo.errors import ConfigError, RunError
from fedzo.objectives.looped_cohort import LoopedCohort
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.questions.peers import Mix, Model
from fedzo.protocol.questions.training_config import MomentumConfig
from fedzo.randomness import stream
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import RunResult, federate, simulate
from strategies.core.driver import RunSettings, Snapshot, run_rounds
from strategies.peers.graphs import parse_graph
from strategies.peers.monna import MoNNA, MoNNAConfig, known_mixing

NODES = 8


def run(*, nodes: int = NODES, rounds: int = 6, **settings: Any) -> RunResult:
    given = {k.replace("__", "."): v for k, v in settings.items()}
    made = make_experiment(
        "quadratic",
        "monna",
        num_rounds=rounds,
        num_clients=nodes,
        settings={"scenario.dim": 12, "scenario.heterogeneity": 5.0, **given},
    )
    return simulate(made)


def objective(client: int) -> TorchObjective:
    return TorchObjective(function=lambda x: 0.5 * ((x - client) ** 2).sum(-1), dim=3)


def drive(config: MoNNAConfig, rounds: int, graph: Any = None, **client: Any) -> Any:
    engine = InProcessEngine(FunctionEnvironment(objective), make_rules())
    strategy = MoNNA(config, client=MomentumConfig(**client), graph=graph)
    problem = OpenProblem(initial_x=torch.zeros(3).double())
    settings = RunSettings(num_clients=NODES, num_rounds=rounds)
    return run_rounds(strategy, engine, problem, settings)


@pytest.mark.parametrize("strategy", ["monna", "dadao"])
def test_models_stay_in_the_box_of_x(strategy: str) -> None:
    def boxed(client: int) -> TorchObjective:
        lower = torch.tensor([-0.25, 0.0, -1.0])
        return TorchObjective(
            function=lambda x: ((x + 3 + client) ** 2).sum(-1), dim=3, lower=lower, upper=0.75
        )

    settings = {"strategy.local_lr": 0.3} if strategy == "monna" else {"strategy.smoothness": 2.0}
    result = federate(boxed, num_clients=4, num_rounds=8, strategy=strategy, settings=settings)
    assert torch.equal(result.x, torch.tensor([-0.25, 0.0, -1.0]).to(result.x))
    wanted = sum(float(boxed(c).value(result.x)) for c in range(4)) / 4
    assert result.final_value == pytest.approx(wanted)


def test_without_momentum_and_liars_it_is_sgd_on_the_mean() -> None:
    outcome = drive(MoNNAConfig(local_lr=0.1, aggregator="nearest_neighbor_average"), 3, beta=0.0)
    x = torch.zeros(3).double()
    for _ in range(3):
        x = x - 0.1 * (x - 3.5)
    torch.testing.assert_close(outcome.state.models, x.expand(NODES, -1))
    assert outcome.records[-1].metrics["disagreement"] < 1e-12


def test_it_goes_on_with_a_fresh_object_from_its_state_alone() -> None:
    config, ring = MoNNAConfig(local_lr=0.2, received="all"), nx.cycle_graph(NODES)
    client, problem = MomentumConfig(beta=0.9), OpenProblem(initial_x=torch.zeros(3).double())
    limits = RunSettings(num_clients=NODES, num_rounds=5)
    kept: dict[int, tuple[Snapshot, Any]] = {}

    def engine() -> InProcessEngine:
        return InProcessEngine(FunctionEnvironment(objective), make_rules())

    first = engine()

    def keep(snapshot: Snapshot) -> None:
        kept[snapshot.record.round_index] = snapshot, dict(first.client_states())

    whole = run_rounds(
        MoNNA(config, client=client, graph=ring), first, problem, limits, callbacks=[keep]
    )
    snapshot, states = kept[2]
    second = engine()
    second.restore_client_states(states)
    fresh = MoNNA(config, client=client)  # it has not been told of the ring, its state has
    rest = run_rounds(fresh, second, problem, limits, resume=snapshot)
    assert torch.equal(rest.state.models, whole.state.models)


def test_a_round_by_hand_on_a_ring() -> None:
    config = MoNNAConfig(local_lr=1.0, graph="ring(neighbors=2)", received="all")
    outcome = drive(config, 1, beta=0.5)
    half = torch.arange(NODES).double() * 0.5
    expected = (half + half.roll(1) + half.roll(-1)) / 3
    torch.testing.assert_close(outcome.state.models[:, 0], expected)
    own = outcome.records[-1].nodes
    values = [sum(0.5 * 3 * (float(m) - c) ** 2 for c in range(NODES)) / NODES for m in expected]
    assert own[0]["value"] == pytest.approx(values[0])
    assert own[3]["value"] == pytest.approx(values[3])
    assert outcome.records[-1].value == pytest.approx(sum(values) / NODES)


def mixing(
    models: torch.Tensor,
    heard: torch.Tensor,
    f: int,
    rule: str = "nearest_neighbor_average",
    **more: Any,
) -> torch.Tensor:
    question = Mix(
        models=models,
        heard=heard.to(torch.uint8),
        own=torch.arange(len(heard)),
        aggregator=rule,
        num_byzantine=f,
        report=True,
        **more,
    )
    states = [{MODEL: row} for row in models[: len(heard)]]
    cohort = LoopedCohort([objective(i) for i in range(len(heard))])
    answer, after = mix_models(question, clients_of(cohort, states, ids=range(len(heard))))
    assert isinstance(answer, Model)
    assert all(torch.equal(s[MODEL], m) for s, m in zip(after, answer.model, strict=True))
    return answer.model


def draw(n: int = 9, d: int = 7) -> torch.Tensor:
    return torch.from_numpy(stream(0, "models").standard_normal((n, d)))


def test_all_at_once_equals_one_by_one() -> None:
    models = draw()
    models[8] = torch.nan
    heard = torch.from_numpy(stream(1, "heard").random((9, 9)) < 0.8) | torch.eye(9).bool()
    lies = torch.from_numpy(stream(2, "lies").standard_normal((9, 2, 7)))
    liars = torch.tensor([[0, 1]]).expand(9, -1).clone()
    found = mixing(models[:8], heard[:8, :8], 2)
    for i in range(8):
        near = torch.cat([models[i : i + 1], models[:8][heard[i, :8] & (torch.arange(8) != i)]])
        torch.testing.assert_close(found[i], nearest_neighbor_average(near, num_byzantine=2))
    told = mixing(models, heard[2:8], 2, lies=lies[2:8], liars=liars[2:8])
    for i in range(6):
        others = heard[i + 2] & (torch.arange(9) != i) & (torch.arange(9) > 1)
        near = torch.cat([models[i : i + 1], models[others], lies[i + 2]])
        torch.testing.assert_close(told[i], nearest_neighbor_average(near, num_byzantine=2))


def test_any_rule_may_mix_with_the_own_model_first() -> None:
    models, everybody = draw(), torch.ones(9, 9)
    found = mixing(models, everybody, 2, "nearest_neighbor_average(own=0)")
    torch.testing.assert_close(found, nearest_neighbor_mixing(models, num_byzantine=2))
    clipped = mixing(models, everybody, 2, "centered_clipping(radius=1e-9)")
    torch.testing.assert_close(clipped, models, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("attack", "receivers"),
    [
        ("sign_flip", "same"),
        ("alie", "opposite"),
        ("infinity", "same"),
        *(
            pytest.param(attack, receivers, marks=pytest.mark.slow)
            for attack in ("foe_searched", "gaussian")
            for receivers in ("same", "opposite")
        ),
    ],
)
def test_it_withstands_liars_and_averaging_does_not(attack: str, receivers: str) -> None:
    settings = {
        "strategy__local_lr": 0.3,
        "byzantine__attack": attack,
        "byzantine__num_clients": 2,
        "byzantine__receivers": receivers,
        "strategy__evaluate_every": 20,
        "rounds": 40,
        "nodes": 11,
    }
    robust = run(strategy__num_byzantine=2, **settings)
    assert robust.final_value is not None
    assert robust.initial_value is not None
    assert robust.final_value < 0.8 * robust.initial_value
    assert set(robust.records[-1].nodes) == set(range(9)), "liars' own models are not judged"


def test_averaging_collapses() -> None:
    result = run(
        strategy__aggregator="mean",
        byzantine__attack="inner_product",
        byzantine__scale=20.0,
        byzantine__num_clients=2,
        rounds=20,
    )
    assert result.final_value is None or result.final_value > 2.0


@pytest.mark.parametrize("mixings", [1, 3])
def test_mixing_again_brings_nodes_closer(mixings: int) -> None:
    ring = {"strategy__graph": "ring(neighbors=2)"}
    once = run(rounds=5, **ring).metrics["disagreement"]
    more = run(rounds=5, strategy__mixings=mixings, **ring).metrics["disagreement"]
    assert more < once if mixings > 1 else more == once


def test_models_are_reported_only_where_they_are_judged() -> None:
    often, seldom = run(rounds=4), run(rounds=4, strategy__evaluate_every=4)
    saved = 3 * NODES * 12
    assert often.records[-1].floats_up - seldom.records[-1].floats_up == saved
    assert torch.equal(often.x, seldom.x)


def test_nodes_hear_a_quorum_or_all() -> None:
    config = MoNNAConfig(num_byzantine=2, aggregator="nearest_neighbor_average")
    vectors = draw(10)
    kept = known_mixing(config, vectors, num_liars=2)
    squares = (vectors[0] - vectors).square().sum(1)
    torch.testing.assert_close(kept[0], vectors[squares.argsort()[:6]].mean(0))
    everybody = MoNNAConfig(num_byzantine=2, received="all")
    kept = known_mixing(everybody, vectors, num_liars=2)
    torch.testing.assert_close(kept[0], vectors[squares.argsort()[:8]].mean(0))
    assert kept.shape == (8, 4 + 3)


def test_a_node_that_fails_goes_on_later() -> None:
    result = run(rounds=12, faults__drop=0.2, faults__crash=0.1, strategy__num_byzantine=1)
    assert result.records[-1].round_index == 12
    assert sum(len(record.failures) for record in result.records) > 5
    assert torch.isfinite(result.x).all()


def test_too_many_dropouts_end_it_with_the_bound() -> None:
    settings = {"strategy__num_byzantine": 2, "faults__crash": 0.6}
    with pytest.raises(RunError, match="a node hears"):
        run(rounds=30, strategy__max_failed_rounds=0, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy__num_byzantine": 3}, "a node hears 5 models"),
        ({"strategy__graph": "ring(neighbors=3)"}, "even"),
        ({"strategy__graph": "ring(neighbours=2)"}, "did you mean ring.neighbors"),
        ({"strategy__graph": "cirle"}, "unknown graph cirle"),
        ({"strategy__graph": "random_regular(degree=9)"}, "below 8 clients"),
        ({"strategy__graph": "erdos_renyi(p=2.0)"}, "a probability"),
        (
            {"strategy__graph": "ring(neighbors=2)", "strategy__num_byzantine": 1},
            "a node hears 2 models",
        ),
        ({"strategy__mixings": 0}, "mixings=0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        run(**settings)
    assert words in str(error.value)


def test_graphs_by_name_and_from_files(tmp_path: Path) -> None:
    assert nx.is_isomorphic(parse_graph("ring")(6), nx.cycle_graph(6))
    assert parse_graph("complete")(5).number_of_edges() == 10
    assert dict(parse_graph("torus")(12).degree()) == dict.fromkeys(range(12), 4)
    assert set(dict(parse_graph("random_regular(degree=4, seed=1)")(10).degree()).values()) == {4}
    path = tmp_path / "edges.txt"
    path.write_text("0 1\n1 2\n")
    assert sorted(parse_graph(str(path))(4).edges) == [(0, 1), (1, 2)]
    path.write_text("zero one\n")
    with pytest.raises(ConfigError, match="is no edge list"):
        parse_graph(str(path))(4)


def test_a_graph_of_networkx() -> None:
    star = nx.star_graph(NODES - 1)
    outcome = drive(MoNNAConfig(local_lr=1.0, received="all"), 1, graph=star, beta=0.0)
    models = outcome.state.models[:, 0]
    torch.testing.assert_close(models[0], torch.arange(NODES).double().mean())
    torch.testing.assert_close(models[5], torch.tensor(2.5).double())
    with pytest.raises(ConfigError, match="it needs the nodes 0 to 7"):
        drive(MoNNAConfig(), 1, graph=nx.path_graph(5))


def test_zeroth_order_nodes_learn_too() -> None:
    result = run(rounds=30, client__gradient="zeroth_order", strategy__local_lr=0.3)
    assert result.queries == 30 * NODES * 21
    assert result.final_value is not None
    assert result.initial_value is not None
    assert result.final_value < 0.5 * result.initial_value


def digits(attack: str, aggregator: str, f: int) -> float:
    """Return the test accuracy of 26 nodes with 5 liars, near-IID on MNIST-5k."""
    settings: dict[str, Any] = {
        "scenario.partition": "dirichlet",
        "scenario.alpha": 100.0,
        "strategy.aggregator": aggregator,
        "strategy.num_byzantine": f,
        "strategy.evaluate_every": 0,
    }
    if attack != "none":
        settings |= {"byzantine.attack": attack, "byzantine.num_clients": 5}
    made = make_experiment(
        "classification", "monna", num_rounds=60, num_clients=26, settings=settings
    )
    return simulate(made).metrics["test_accuracy"]


@pytest.mark.slow
def test_twenty_six_nodes_with_five_liars_learn_digits() -> None:
    free = digits("none", "mean", 0)
    assert free > 0.7
    for attack in ("sign_flip", "alie"):
        assert digits(attack, "nearest_neighbor_average", 5) > free - 0.1, attack
    assert digits("sign_flip", "mean", 0) < 0.5

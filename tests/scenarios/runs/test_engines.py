"""One strategy, one client app, unchanged: in this process, on Ray, and on Flower's engine."""

import inspect
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import ray
import tomli_w
import torch
from ray import cloudpickle
from torch import Tensor

from clients import build_client_app, make_rules
from fedzo.errors import ConfigError, FedzoWarning, RunError
from fedzo.objectives.cohort import cohort_of
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.questions import GradientEstimate, Values, ZerothOrderSteps
from fedzo.protocol.questions.training_config import ZerothOrderConfig
from fedzo.runtime.engine import Engine
from fedzo.runtime.engine_configs import RayConfig
from fedzo.runtime.flower.deployment import LocalDeployment
from fedzo.runtime.flower.engine import FlowerEngine
from fedzo.runtime.flower.simulation import FlowerSimulation
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from fedzo.runtime.ray.actors import start_ray
from fedzo.runtime.ray.pool import RayEngine
from scenarios.runs.engines import ExperimentEnvironment, known_defence
from scenarios.runs.experiment import build_strategy, make_experiment
from scenarios.runs.simulate import federate, simulate
from strategies.core.base import RoundStrategy
from strategies.core.driver import Outcome, RunSettings, run_rounds
from strategies.core.method import defence_of
from strategies.core.rounds import Round, RoundConfig, RoundPlan
from strategies.core.screening import rejected

pytestmark = pytest.mark.xdist_group("ray")

cloudpickle.register_pickle_by_value(sys.modules[__name__])

CLIENTS, ROUNDS = 6, 10
X0 = torch.full((8,), 0.7, dtype=torch.float64)


def objective(client: int) -> TorchObjective:
    def value(x: Tensor) -> Tensor:
        return ((x - 0.1 * client) ** 2).sum(-1) + torch.cos(3 * x).sum(-1)

    return TorchObjective(function=value, dim=8, lower=-1.0, upper=1.0)


@dataclass(frozen=True)
class MixedState:
    x: Tensor


class Mixed(RoundStrategy[MixedState]):
    """Half of the clients answer values and half gradients at once; then all train, with memory."""

    rounds = RoundConfig()
    settings: ClassVar = ZerothOrderConfig(estimator="residual", num_directions=4)

    def init(self, x: Tensor, num_clients: int) -> MixedState:
        return MixedState(x)

    def round(self, state: MixedState, plan: RoundPlan) -> Round[MixedState]:
        cohort = list(plan.cohort)
        points = torch.stack([state.x, 0.9 * state.x])
        central = replace(self.settings, estimator="central")
        estimate = GradientEstimate(x=state.x, settings=central)
        values, slopes = yield [
            Exchange(question=Values(x=points), client_ids=cohort[::2]),
            Exchange(question=estimate, client_ids=cohort[1::2]),
        ]
        shorter = values.tensors["values"].mean(0).argmin() == 1
        x = state.x * (0.9 if shorter else 1.0) - 0.01 * slopes.tensors["gradient"].mean(0)
        steps = ZerothOrderSteps(x=x, settings=self.settings, local_steps=2, local_lr=0.02)
        [updates] = yield [Exchange(question=steps, client_ids=cohort)]
        return MixedState(x + updates.tensors["update"].mean(0))


def run_mixed(engine: Engine, callbacks: Any = (), clients: int = CLIENTS) -> Outcome:
    settings = RunSettings(num_clients=clients, num_rounds=ROUNDS, seed=5)
    problem = OpenProblem(initial_x=X0, lower=-1.0, upper=1.0)
    return run_rounds(Mixed(), engine, problem, settings, callbacks=callbacks)


def in_process(chunk_size: int = 0) -> InProcessEngine:
    environment = FunctionEnvironment(objective)
    return InProcessEngine(environment, make_rules(), chunk_size=chunk_size)


@pytest.fixture
def cluster() -> None:
    """Ray on two CPUs with a GPU that does not exist, until the end of the file."""
    if not ray.is_initialized():
        start_ray(RayConfig(cluster_cpus=2, cluster_gpus=1))


@pytest.fixture
def no_cluster() -> None:
    ray.shutdown()


@pytest.fixture(scope="module", autouse=True)
def stop_ray() -> Iterator[None]:
    yield
    ray.shutdown()


@contextmanager
def on_ray(make: Callable[[int], Any] = objective, **settings: Any) -> Iterator[RayEngine]:
    environment = FunctionEnvironment(make)
    engine = RayEngine(lambda: environment, make_rules, RayConfig(**settings))
    try:
        yield engine
    finally:
        engine.close()


def same_history(one: Outcome, other: Outcome) -> None:
    """Everything but the time agrees."""
    for a, b in zip(one.records, other.records, strict=True):
        assert {**vars_of(a), "wall_s": 0} == {**vars_of(b), "wall_s": 0}


def vars_of(record: Any) -> Mapping[str, Any]:
    return json.loads(record.to_json())


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_ray_gives_the_same_bits_where_chunks_are_equal(chunk_size: int) -> None:
    expected = run_mixed(in_process(chunk_size))
    with on_ray(chunk_size=chunk_size) as engine:
        found = run_mixed(engine)
    assert torch.equal(found.state.x, expected.state.x)
    assert not torch.equal(found.state.x, X0)
    same_history(found, expected)


def deadly(client: int) -> TorchObjective:
    """Client 6 takes its process with it, as a segmentation fault does."""

    def value(x: Tensor) -> Tensor:
        import os

        os._exit(3)

    return TorchObjective(function=value, dim=8) if client == CLIENTS else objective(client)


@pytest.mark.usefixtures("cluster")
def test_ray_agrees_to_nine_digits_whatever_the_chunks_and_who_kills_an_actor_falls_alone() -> None:
    """Of one actor, for every start of one takes seconds."""
    expected = run_mixed(in_process())
    ask = Exchange(question=Values(x=X0.unsqueeze(0)), client_ids=[0, 1, 2, CLIENTS])
    with on_ray(deadly, num_actors=1, chunk_size=2, retries=0) as engine:
        found = run_mixed(engine)
        [replies] = engine.perform([ask], timeout_s=60)
    torch.testing.assert_close(found.state.x, expected.state.x, rtol=1e-9, atol=0)
    assert list(replies.client_ids) == [0, 1, 2]
    assert replies.failures.keys() == {CLIENTS}
    assert "its Ray actor died" in replies.failures[CLIENTS]


@pytest.mark.slow
@pytest.mark.usefixtures("no_cluster")
def test_flowers_engine_gives_the_same_bits() -> None:
    expected = run_mixed(in_process(1))
    app = build_client_app(objective)
    with FlowerSimulation(app, num_clients=CLIENTS) as grid:
        engine = FlowerEngine(grid, poll_s=0.01)
        assert engine.wait_for_clients(CLIENTS, 60.0) == CLIENTS
        found = run_mixed(engine)
    assert torch.equal(found.state.x, expected.state.x)
    same_history(found, expected)


def troubled(client: int) -> TorchObjective:
    """Where x is above 0, client 1 does not answer, and client 2 takes its process with it."""

    def value(x: Tensor) -> Tensor:
        import os
        import time

        if client == 1 and bool((x > 0).all()):
            time.sleep(1000)
        if client == 2 and bool((x > 0).all()):
            os._exit(3)
        return x.sum(-1)

    return TorchObjective(function=value, dim=8)


@pytest.mark.slow
@pytest.mark.usefixtures("no_cluster")
def test_flowers_engine_replaces_actors_that_hang_or_are_gone_and_ends() -> None:
    asks = [Exchange(question=Values(x=x.unsqueeze(0)), client_ids=range(4)) for x in (X0, -X0)]
    simulation = FlowerSimulation(build_client_app(troubled), num_clients=4)
    with simulation as grid:
        engine = FlowerEngine(grid, poll_s=0.01, limit_nodes=simulation.limit_nodes)
        assert engine.wait_for_clients(4, 60.0) == 4
        [hit] = engine.perform([asks[0]], timeout_s=20.0)
        assert hit.failures[1] == "no answer in time"
        assert {*hit.failures} <= {1, 2, 3}  # 3: it waits for the actor that client 1 has
        [replies] = engine.perform([asks[1]], timeout_s=60.0)
        assert list(replies.client_ids) == [0, 1, 2, 3]
        begun = time.monotonic()
        engine.begin(Exchange(question=Values(x=X0.unsqueeze(0)), client_ids=[1]), timeout_s=600.0)
        time.sleep(1.0)
    assert time.monotonic() - begun < 30


APP = """
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from flwr.serverapp import ServerApp
from torch import Tensor

from clients import build_client_app
from fedzo.protocol.exchange import Exchange
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.questions import GradientEstimate, Values, ZerothOrderSteps
from fedzo.protocol.questions.training_config import ZerothOrderConfig
from fedzo.runtime.engine import Engine
from fedzo.runtime.flower.engine import FlowerEngine
from strategies.core.base import RoundStrategy
from strategies.core.driver import Outcome, RunSettings, run_rounds
from strategies.core.rounds import Round, RoundConfig, RoundPlan

CLIENTS, ROUNDS = 2, 10
X0 = torch.full((8,), 0.7, dtype=torch.float64)

{sources}

client_app = build_client_app(objective)
server_app = ServerApp()


@server_app.main()
def main(grid, context):
    torch.set_num_threads(1)
    engine = FlowerEngine(grid)
    engine.wait_for_clients(CLIENTS, 120.0)
    outcome = run_mixed(engine)
    records = [json.loads(record.to_json()) for record in outcome.records]
    out = Path(context.run_config["out"])
    fresh = out.with_suffix(".new")
    fresh.write_text(json.dumps([outcome.state.x.tolist(), records]))
    fresh.replace(out)
"""


@pytest.mark.slow
def test_a_superlink_with_two_supernodes_gives_the_same_bits(tmp_path: Path) -> None:
    parts = (objective, MixedState, Mixed, run_mixed)
    text = APP.replace("{sources}", "\n\n".join(inspect.getsource(part) for part in parts))
    app, out = tmp_path / "app", tmp_path / "result.json"
    (app / "mixed_app").mkdir(parents=True)
    (app / "mixed_app" / "__init__.py").write_text(text)
    parts_of = {"serverapp": "mixed_app:server_app", "clientapp": "mixed_app:client_app"}
    flwr = {"app": {"publisher": "t", "components": parts_of, "config": {"out": ""}}}
    project = {"name": "mixed-app", "version": "1.0.0", "description": "x", "dependencies": []}
    (app / "pyproject.toml").write_text(tomli_w.dumps({"project": project, "tool": {"flwr": flwr}}))
    with LocalDeployment(tmp_path / "net", num_nodes=2) as network:
        run_id = network.submit(app, {"out": str(out)})
        end = time.monotonic() + 400
        while not out.exists() and time.monotonic() < end:
            time.sleep(2.0)
        assert out.exists(), (network.status(run_id), network.log("superlink")[-2000:])
    x, records = json.loads(out.read_text())
    expected = run_mixed(in_process(1), clients=2)
    assert x == expected.state.x.tolist()
    for found, wanted in zip(records, expected.records, strict=True):
        assert {**found, "wall_s": 0} == {**vars_of(wanted), "wall_s": 0}


def run_cli(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "scenarios.cli", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "flower"])
def test_the_command_line_gives_the_same_result_on_every_engine(engine: str) -> None:
    arguments = ("run", "quadratic", "--strategy", "fedzo", "--seed", "0", "--rounds", "8")
    expected, found = run_cli(*arguments), run_cli(*arguments, "--engine", engine)
    differs = {"engine": engine, "wall_s": found["wall_s"]}
    assert found == {**expected, **differs}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "flower"])
def test_liars_lie_the_same_on_every_engine(engine: str) -> None:
    """Peers with models of their own, a learning attack, and labels flipped at the client."""
    monna = ("run", "quadratic", "--strategy", "monna", "--clients", "6", "--rounds", "4")
    robust = ("--set", "strategy.num_byzantine=1", "--set", "byzantine.num_clients=1")
    mimic = ("--set", "byzantine.attack=mimic_learned", "--set", "byzantine.receivers=opposite")
    flipped = ("run", "classification", "--strategy", "dshb", "--clients", "4", "--rounds", "2")
    flips = ("--set", "byzantine.attack=label_flip", "--set", "scenario.dataset=digits")
    rule = ("--set", "strategy.aggregator=nnm | median")
    for arguments in ((*monna, *robust, *mimic), (*flipped, *robust, *flips, *rule)):
        expected, found = run_cli(*arguments), run_cli(*arguments, "--engine", engine)
        assert found == {**expected, "engine": engine, "wall_s": found["wall_s"]}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_client_states_of_ray_survive_a_checkpoint_and_another_engine() -> None:
    expected = run_mixed(in_process(1))
    settings = RunSettings(num_clients=CLIENTS, num_rounds=ROUNDS, seed=5)
    problem = OpenProblem(initial_x=X0, lower=-1.0, upper=1.0)
    half: list[Any] = []
    with on_ray(chunk_size=1) as engine:
        stop = [lambda s: half.append(s) or s.record.round_index == 4]
        run_rounds(Mixed(), engine, problem, settings, callbacks=stop)
        states = dict(engine.client_states())
    assert set(states) == set(range(CLIENTS))
    with on_ray(chunk_size=1) as other:
        other.restore_client_states(states)
        snapshot = half[-1]
        found = run_rounds(Mixed(), other, problem, settings, resume=snapshot)
    assert torch.equal(found.state.x, expected.state.x)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_quarters_of_a_gpu_make_four_actors_and_the_same_bits() -> None:
    expected = run_mixed(in_process(1))
    with on_ray(num_gpus=0.25, num_cpus=0.25, chunk_size=1) as engine:
        assert len(engine.actors) == 4
        assert len(set([ray.get(a.pid.remote()) for a in engine.actors._actors])) == 4
        seen = ray.get([actor.visible_gpus.remote() for actor in engine.actors._actors])
        assert seen == ["0"] * 4
        found = run_mixed(engine)
    assert torch.equal(found.state.x, expected.state.x)
    assert not torch.equal(found.state.x, X0)
    same_history(found, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_cluster_without_room_says_what_it_has() -> None:
    with pytest.raises(ConfigError, match=r"engine.num_gpus=3; it has 2 CPUs and 1 GPUs in all"):
        RayEngine(lambda: FunctionEnvironment(objective), make_rules, RayConfig(num_gpus=3.0))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_killed_actors_are_replaced_and_nothing_is_lost() -> None:
    expected = run_mixed(in_process(1))

    def kill(snapshot: Any) -> None:
        if snapshot.record.round_index in (2, 5):
            ray.kill(engine.actors._actors[snapshot.record.round_index % 2])

    with on_ray(chunk_size=1) as engine:
        found = run_mixed(engine, [kill])
        assert len(engine.actors) == 2
    assert torch.equal(found.state.x, expected.state.x)
    assert not any(record.failures for record in found.records)


ASK = Exchange(question=Values(x=X0.unsqueeze(0)), client_ids=range(4))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_running_out_of_memory_fails_a_client_not_the_run() -> None:
    def make(client: int) -> TorchObjective:
        def value(x: Tensor) -> Tensor:
            if client == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            return x.sum(-1)

        return TorchObjective(function=value, dim=8)

    with on_ray(make) as engine:
        [replies] = engine.perform([ASK], timeout_s=60)
    assert list(replies.client_ids) == [0, 2, 3]
    assert "out of memory" in replies.failures[1]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_client_that_hangs_is_missing_and_its_actor_is_replaced() -> None:
    def make(client: int) -> TorchObjective:
        def value(x: Tensor) -> Tensor:
            import time

            time.sleep(30 if client == 1 and bool((x > 0).all()) else 0)
            return x.sum(-1)

        return TorchObjective(function=value, dim=8)

    with on_ray(make, chunk_size=1) as engine:
        [late] = engine.perform([ASK], timeout_s=2.0)
        assert list(late.client_ids) == [0, 2, 3]
        assert late.failures == {1: "no answer in time"}
        again = Exchange(question=Values(x=-X0.unsqueeze(0)), client_ids=range(4))
        [replies] = engine.perform([again], timeout_s=60)
        assert list(replies.client_ids) == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_actor_that_cannot_be_built_is_one_sentence() -> None:
    def broken() -> FunctionEnvironment:
        raise RuntimeError("the data are not on this machine")

    with pytest.raises(RunError, match=r"a Ray actor does not start.*not on this machine"):
        RayEngine(broken, make_rules, RayConfig())


@pytest.mark.slow
@pytest.mark.usefixtures("no_cluster")
def test_an_engine_stops_the_ray_that_it_has_started() -> None:
    engine = RayEngine(
        lambda: FunctionEnvironment(objective), make_rules, RayConfig(cluster_cpus=1)
    )
    assert ray.is_initialized()
    engine.close()
    assert not ray.is_initialized()
    engine.close()


def test_what_travels_to_other_processes_is_a_text() -> None:
    experiment = make_experiment("quadratic", "fedzo", settings={"scenario.dim": 5})
    environment = ExperimentEnvironment(experiment.to_toml())
    assert environment.cohort([1, 3], 0).num_clients == 2
    assert environment.noise_std == 0.0


def test_the_record_needs_a_directory_and_superlink_a_deployment(tmp_path: Path) -> None:
    recorded = make_experiment("quadratic", "fedzo", settings={"engine.record": True})
    with pytest.raises(ConfigError, match="give --out"):
        simulate(recorded)
    deployed = make_experiment("quadratic", "fedzo", engine="superlink")
    with pytest.raises(ConfigError, match="fedzo deploy"):
        simulate(deployed, out=tmp_path / "run")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_actor_that_takes_long_to_start_is_waited_for() -> None:
    """A timeout shorter than a start must not kill every replacement as it starts."""

    def slow_world() -> FunctionEnvironment:
        import time

        time.sleep(2.0)
        return FunctionEnvironment(hangs_above_zero)

    engine = RayEngine(slow_world, make_rules, RayConfig(num_actors=1))
    try:
        [late] = engine.perform([ASK], timeout_s=1.0)
        assert set(late.failures) == {0, 1, 2, 3}
        kind = Exchange(question=Values(x=-X0.unsqueeze(0)), client_ids=range(4))
        for _ in range(40):
            [replies] = engine.perform([kind], timeout_s=1.0)
            if len(replies.client_ids) == 4:
                break
        assert list(replies.client_ids) == [0, 1, 2, 3]
    finally:
        engine.close()


def hangs_above_zero(client: int) -> TorchObjective:
    def value(x: Tensor) -> Tensor:
        import time

        time.sleep(30 if client == 1 and bool((x > 0).all()) else 0)
        return x.sum(-1)

    return TorchObjective(function=value, dim=8)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_after_a_timeout_the_slow_client_is_slow_alone() -> None:
    with on_ray(hangs_above_zero) as engine:
        [first] = engine.perform([ASK], timeout_s=1.5)
        assert set(first.failures) == {0, 1}, "its chunk is late with it"
        engine.perform([ASK.select([2])], timeout_s=60)
        [second] = engine.perform([ASK], timeout_s=3.0)
        assert set(second.failures) == {1}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("engine", ["ray", pytest.param("flower", marks=pytest.mark.slow)])
def test_objectives_that_cannot_be_copied_are_one_sentence(engine: str) -> None:
    lock = threading.Lock()

    def make(client: int) -> TorchObjective:
        def value(x: Tensor) -> Tensor:
            with lock:
                return x.sum(-1)

        return TorchObjective(function=value, dim=3)

    with pytest.raises(ConfigError, match=r"cannot be copied to other processes"):
        federate(make, num_clients=2, num_rounds=1, engine=engine)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_objectives_may_make_what_cannot_be_copied() -> None:
    result = federate(locked, num_clients=2, num_rounds=2, engine="ray")
    assert torch.equal(result.x, federate(locked, num_clients=2, num_rounds=2).x)


def locked(client: int) -> TorchObjective:
    lock = threading.Lock()

    def value(x: Tensor) -> Tensor:
        with lock:
            return (x - client).square().sum(-1)

    return TorchObjective(function=value, dim=3)


def test_more_cpus_than_there_are_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"engine.num_cpus=64 exceeds the \d+ CPUs here"):
        simulate(
            make_experiment("quadratic", "fedzo", engine="flower", settings={"engine.num_cpus": 64})
        )


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_address_beside_a_running_ray_is_refused() -> None:
    with pytest.raises(ConfigError, match="this process already runs on Ray"):
        start_ray(RayConfig(address="127.0.0.1:1"))


def test_running_out_of_memory_together_is_tried_one_by_one() -> None:
    """What does not fit for the whole cohort may fit for one client."""

    class Hungry(FunctionEnvironment):
        def cohort(self, client_ids: Any, problem: int) -> Any:
            inner = cohort_of([objective(client) for client in client_ids])
            return Greedy(inner) if len(client_ids) > 1 else inner

    engine = InProcessEngine(Hungry(objective), make_rules())
    [replies] = engine.perform([ASK], timeout_s=1)
    assert list(replies.client_ids) == [0, 1, 2, 3]
    assert replies.counts["queries"] == dict.fromkeys(range(4), 1)


class Greedy:
    """A cohort that does not fit into memory."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def value(self, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.usefixtures("cluster")
def test_a_file_of_objectives_that_lies_elsewhere_is_read_by_the_actors(tmp_path: Path) -> None:
    file = tmp_path / "statistics.py"  # a module of that name is Python's: it gets another
    file.write_text(
        "import fedzo\n"
        "def make(client):\n"
        "    return fedzo.TorchObjective(function=lambda x: (x - client).square().sum(-1), dim=3)\n"
    )
    reference = f"{file}:make"
    found = [
        federate(reference, num_clients=2, num_rounds=1, engine=engine).x
        for engine in ("inprocess", "ray")
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize(("num_clients", "liars"), [(7, 3), (9, 3), (9, 2)])
@pytest.mark.parametrize("length", [1.0, 10.0, 1e4])
def test_liars_know_what_the_server_makes_of_their_lies(
    num_clients: int, liars: int, length: float
) -> None:
    """Also where it cannot leave out all that are absurd, and keep enough answers for its rule."""
    experiment = make_experiment(
        "quadratic",
        "fedavg",
        num_clients=num_clients,
        settings={
            "strategy.aggregator": "nnm | trimmed_mean",
            "strategy.num_byzantine": liars,
            "byzantine.num_clients": liars,
            "byzantine.attack": "foe_searched",
        },
    )
    strategy = build_strategy(experiment)
    honest = torch.linspace(-1, 1, (num_clients - liars) * 3).reshape(-1, 3).sin()
    vectors = torch.cat([honest, torch.full((liars, 3), length)])
    asked = Exchange(question=Values(x=X0.unsqueeze(0)), client_ids=range(num_clients))
    counts = {"queries": dict.fromkeys(range(num_clients), 1)}
    replies = Replies(client_ids=range(num_clients), tensors={"update": vectors}, counts=counts)
    defence = defence_of(strategy, num_clients)
    gone = rejected([asked], [replies], strategy.rounds, defence)
    kept = [i for i in range(num_clients) if i not in gone]
    expected = strategy.defended(
        vectors[kept], num_liars=sum(i >= num_clients - liars for i in kept)
    )
    assert torch.equal(known_defence(experiment)(vectors), expected)


def test_more_liars_than_the_rule_is_made_for_are_told() -> None:
    settings: dict[str, Any] = {
        "scenario.dim": 4,
        "strategy.aggregator": "median",
        "strategy.num_byzantine": 2,
        "byzantine.attack": "sign_flip",
        "byzantine.num_clients": 3,
    }
    made = make_experiment("quadratic", "seedzo", num_rounds=1, num_clients=7, settings=settings)
    with pytest.warns(FedzoWarning, match="3 of 7 clients lie, and strategy.aggregator=median is"):
        simulate(made)

"""From an experiment to the engine that runs its clients, opened and closed."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid
from jaxtyping import Float
from torch import Tensor

from clients.app import build_client_app
from clients.rules import make_rules
from fedzo.adversary.lies import Defend
from fedzo.compression.config import CompressionConfig
from fedzo.errors import ConfigError, FedzoWarning
from fedzo.fleet.config import FleetConfig
from fedzo.fleet.devices import Fleet
from fedzo.objectives.cohort import CohortObjective
from fedzo.protocol.question import Question
from fedzo.runtime.device import on_device
from fedzo.runtime.engine import Engine
from fedzo.runtime.flower.engine import FlowerEngine
from fedzo.runtime.flower.simulation import START_S, FlowerSimulation
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import Environment, Rule
from fedzo.runtime.middleware.arriving import Arriving
from fedzo.runtime.middleware.byzantine import Byzantine
from fedzo.runtime.middleware.clocked import Clocked
from fedzo.runtime.middleware.compressing import Compressing
from fedzo.runtime.middleware.faulty import Faulty
from fedzo.runtime.middleware.recording import Recording
from fedzo.user_code import absolute_reference
from scenarios.problems.scenario import Scenario
from scenarios.runs.experiment import Experiment, build_strategy
from scenarios.runs.names import SCENARIOS, strategy_entry
from strategies.core.method import defence_of
from strategies.core.screening import left_out

MESSAGES = "messages.jsonl"
NOT_REPEATED = (
    "answers are taken as they arrive, so another run with this seed takes another course; with"
    " fleet.preset it is that of a virtual clock, which repeats"
)


@contextmanager
def open_engine(
    experiment: Experiment,
    scenario: Scenario,
    *,
    given: bool = False,
    out: Path | None = None,
    run_name: str = "",
    grid: Grid | None = None,
) -> Iterator[Engine]:
    """Open the experiment's engine around the scenario's clients, with its faults and its record.

    given: whether the scenario is the caller's own, so that other processes need a copy of it
    instead of making theirs. out: where records and, on Flower, clients' states go. run_name: under
    which clients keep their states. grid: of the deployment, for the engine superlink.
    """
    config = experiment.config("engine")
    if config.record and out is None:
        raise ConfigError("engine.record=true writes messages.jsonl into a directory: give --out")
    with ExitStack() as stack:
        if experiment.engine == "superlink":
            engine = _join_deployment(experiment, run_name, grid)
        else:
            engine = _open_bare(experiment, scenario, given, out, run_name, stack)
        compression: CompressionConfig = experiment.config("compression")
        up = compression.up_scheme
        if up is not None or compression.down_scheme is not None:
            engine = Compressing(engine, up=up, down=compression.down_scheme)
        stack.callback(engine.close)
        if experiment.liars:
            _warn_of_more_liars(experiment)
            engine = Byzantine(
                engine,
                experiment.config("byzantine"),
                experiment.liars,
                seed=experiment.seed,
                defend=known_defence(experiment),
                up=up,
                at_work=_at_work(experiment),
            )
        faults = experiment.config("faults")
        if faults.any:
            engine = Faulty(engine, faults, seed=experiment.seed)
        if config.record and out is not None:
            recording = Recording(engine, out / MESSAGES)
            stack.callback(recording.close)
            engine = recording
        fleet: FleetConfig = experiment.config("fleet")
        if fleet.any:
            engine = Clocked(engine, make_fleet(experiment, scenario))
        elif build_strategy(experiment).asks_in_waves:
            warnings.warn(NOT_REPEATED, FedzoWarning, stacklevel=2)
            engine = Arriving(engine)
        yield engine


def _at_work(experiment: Experiment) -> int:
    """Return how many clients work at a time in waves, 0 without waves."""
    strategy = build_strategy(experiment)
    cohort = strategy.rounds.cohort_size(experiment.num_clients)
    return cohort if strategy.asks_in_waves else 0


def make_fleet(experiment: Experiment, scenario: Environment | None = None) -> Fleet:
    """Return the devices of an experiment's clients; raises ConfigError where they cannot be."""
    config: FleetConfig = experiment.config("fleet")
    examples = None
    if config.correlation:
        scenario = scenario or build_scenario(experiment)
        cohort = scenario.cohort(range(experiment.num_clients), 0)
        examples = cohort.sizes.tolist() if hasattr(cohort, "sizes") else None
    fleet = Fleet(config, seed=experiment.seed, examples=examples)
    fleet.require(experiment.num_clients)
    return fleet


def _open_bare(
    experiment: Experiment,
    scenario: Scenario,
    given: bool,
    out: Path | None,
    run_name: str,
    stack: ExitStack,
) -> Engine:
    config = experiment.config("engine")
    if experiment.engine == "inprocess":
        return InProcessEngine(
            on_device(scenario, config.device),
            RulesOf(experiment.strategy),
            strict=config.strict,
            chunk_size=config.chunk_size,
            workers=config.workers,
        )
    elsewhere: Environment = scenario
    if not given:
        elsewhere = ExperimentEnvironment(experiment.to_toml())
    if experiment.engine == "ray":
        from fedzo.runtime.ray.pool import RayEngine  # Ray takes half a second to import

        rules = partial(RulesOf, absolute_reference(experiment.strategy))
        return RayEngine(partial(_same, elsewhere), rules, config, most=experiment.num_clients)
    states = None if out is None else out / "clients"
    simulation = FlowerSimulation(
        build_client_app(
            elsewhere,
            state_dir=states,
            device=config.device,
            rules=RulesOf(experiment.strategy),
        ),
        num_clients=experiment.num_clients,
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
        verbose=config.verbose,
    )
    engine = FlowerEngine(
        stack.enter_context(simulation),
        poll_s=config.poll_s,
        run_name=run_name,
        check=simulation.check,
        limit_nodes=simulation.limit_nodes,
    )
    engine.wait_for_clients(experiment.num_clients, START_S)
    return engine


def _join_deployment(experiment: Experiment, run_name: str, grid: Grid | None) -> Engine:
    if grid is None:
        raise ConfigError(
            "engine superlink runs on the nodes of a deployment: use `flwr run`, or `fedzo deploy`"
            " for a trial on this machine"
        )
    config = experiment.config("engine")
    engine = FlowerEngine(grid, poll_s=config.poll_s, run_name=run_name)
    clients = engine.wait_for_clients(experiment.num_clients, config.wait_s)
    if clients != experiment.num_clients:
        raise ConfigError(
            f"the nodes say that there are {clients} clients, the run has"
            f" {experiment.num_clients}: set clients={clients} in its config, or num-partitions in"
            " theirs"
        )
    return engine


def _warn_of_more_liars(experiment: Experiment) -> None:
    """Say where more clients lie than a robust rule was told to withstand."""
    defence = defence_of(build_strategy(experiment), experiment.num_clients)
    robust, liars = defence.robust, len(experiment.liars)
    expected = liars * defence.cohort / experiment.num_clients
    if not robust.rule.is_mean and expected > robust.num_byzantine:
        warnings.warn(
            f"{liars} of {experiment.num_clients} clients lie, and strategy.aggregator="
            f"{robust.aggregator} is made for {robust.num_byzantine} of {defence.cohort}; set"
            " strategy.num_byzantine, unless that is what is to be tried",
            FedzoWarning,
            stacklevel=2,
        )


def known_defence(experiment: Experiment) -> Defend:
    """Return what the strategy makes of vectors, honest ones first, as liars know it."""
    strategy, num_liars = build_strategy(experiment), len(experiment.liars)
    defence = defence_of(strategy, experiment.num_clients)

    def defend(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "*m d"]:
        kept = ~left_out(vectors, strategy.rounds, defence)
        return strategy.defended(vectors[kept], num_liars=int(kept[-num_liars:].sum()))

    return _or_mean(defend)


def _or_mean(defend: Defend) -> Defend:
    """Return the defence; the mean where too few are left for it: the round is spoilt anyway."""

    def guess(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "*m d"]:
        try:
            return defend(vectors)
        except ConfigError:
            return vectors.mean(dim=0)

    return guess


@dataclass(frozen=True, slots=True)
class ExperimentEnvironment:
    """The clients' world of an experiment, made anew in the process that asks.

    So what travels to another process is a text, whatever the scenario's data are.
    """

    toml: str

    @property
    def noise_std(self) -> float:
        return _world(self.toml).noise_std

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        return _world(self.toml).cohort(client_ids, problem)


class RulesOf(dict[type[Question[Any]], Rule]):
    """The rules for a strategy: fedzo's, and its own.

    Another process gets the name alone, and loads the user's file itself.
    """

    def __init__(self, strategy: str) -> None:
        super().__init__({**make_rules(), **strategy_entry(strategy).rules})
        self._strategy = absolute_reference(strategy)

    def __reduce__(self) -> tuple[type["RulesOf"], tuple[str]]:
        return RulesOf, (self._strategy,)


def build_scenario(experiment: Experiment) -> Scenario:
    """Build the scenario of an experiment."""
    build = SCENARIOS[experiment.scenario].build
    config = experiment.config("scenario")
    scenario: Scenario = build(config, num_clients=experiment.num_clients, seed=experiment.seed)
    return scenario


@lru_cache(maxsize=1)
def _world(toml: str) -> Environment:
    return build_scenario(Experiment.from_toml(toml))


def _same(environment: Environment) -> Environment:
    return environment

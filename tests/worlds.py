"""Questions, clients and engines without a scenario, as many tests need them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from torch import Tensor

from clients import build_client_app, make_rules
from fedzo.config import Scalar
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.objective import Objective
from fedzo.objectives.oracle import Oracle
from fedzo.protocol.exchange import ClientState, Exchange, Moment, Replies
from fedzo.protocol.question import Answer, Question, Shapes, each, unsent
from fedzo.protocol.questions.training import Trained
from fedzo.runtime.flower.inprocess_grid import InProcessGrid
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import Clients, Environment, FunctionEnvironment
from fedzo.used_with import unmet
from scenarios.problems.custom import CustomScenario
from scenarios.runs.experiment import effects_of, make_experiment
from scenarios.runs.names import STRATEGIES
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate

ON_VECTORS = [name for name, entry in STRATEGIES.items() if entry.rule != "in_place"]
"""Strategies of any scenario; those on modules in place have tests of their own."""
ON_A_CLOCK = [name for name in ON_VECTORS if "fleet.preset" in STRATEGIES[name].preset]
"""Those that go on while clients work, which an engine without a clock cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy(Question[Trained]):
    """A question with a field of every sort; dim: of the update that is expected, 0 for none."""

    kind: ClassVar[str] = "train.toy"
    answer: ClassVar[type[Answer]] = Trained

    x: Tensor | None = None
    row: Tensor | None = each(None)
    count: int = 0
    mu: float = 0.0
    name: str = ""
    base: bool = False
    dim: int = unsent(0)

    def shapes(self) -> Mapping[str, Shapes]:
        return {"update": [(self.dim,)]} if self.dim else {}


@cache
def few_steps(strategy: str) -> Mapping[str, Scalar]:
    """Return the setting by which clients that walk take two steps a round: ten are the default."""
    key, effects = "strategy.local_steps", effects_of("quadratic", strategy, "inprocess", {})
    used = (
        key in effects.values
        and unmet(key, {**effects.heads, **effects.values}, effects.conditions) is None
    )
    return {key: 2} if used else {}


World = Environment | Callable[[int], Objective]


def engine_of(world: World) -> InProcessEngine:
    """Return an engine with fedzo's rules; a world may be a function client -> objective."""
    return InProcessEngine(
        world if not callable(world) else FunctionEnvironment(world), make_rules()
    )


def federate_on_nodes(
    make: Callable[[int], Objective],
    strategy: str,
    *,
    num_clients: int,
    num_rounds: int,
    settings: Mapping[str, Scalar],
) -> RunResult:
    """Return what `federate` would over Flower's messages, with one node a client in the process.

    Flower's simulation sends the same messages; it starts a cluster of its own, for ten seconds.
    """
    made = make_experiment(
        "custom", strategy, engine="superlink", num_rounds=num_rounds, num_clients=num_clients,
        settings=settings,
    )  # fmt: skip
    config = made.config("scenario")
    world = CustomScenario(config, num_clients=num_clients, seed=0, make_objective=make)
    grid = InProcessGrid(build_client_app(world), num_clients=num_clients)
    return simulate(made, scenario=world, grid=grid)


def ask_once(
    question: Question[Any], world: World, ids: Sequence[int] = (0, 1, 2), **driver: Any
) -> Replies:
    """Return the replies of clients that are asked for the first time."""
    exchange = Exchange(question=question, client_ids=ids, **driver)
    return engine_of(world).perform([exchange], timeout_s=1)[0]


def clients_of(
    cohort: CohortObjective,
    states: Sequence[ClientState] = (),
    *,
    ids: Sequence[int] = (0, 1),
    seed: int = 0,
    moment: Moment = Moment(),
    **oracle: Any,
) -> Clients:
    """Return a cohort as rules see it, asked through a fresh oracle."""
    return Clients(ids, Oracle(cohort, **oracle), states or [{} for _ in ids], seed, moment)

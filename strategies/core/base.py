"""A strategy that runs on fedzo's engines and, being a flwr Strategy, in any ServerApp."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from jaxtyping import Float
from torch import Tensor

from fedzo.config import build_config, check_types
from fedzo.errors import ConfigError, RunError
from fedzo.objectives.asking import OnFailure
from fedzo.objectives.box import check_start
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.randomness import stream
from fedzo.records.history import RoundRecord
from fedzo.runtime.engine import Engine, Middleware
from fedzo.runtime.flower.engine import FlowerEngine
from fedzo.runtime.middleware.arriving import Arriving
from strategies.core.driver import Callback, RunSettings, Snapshot, run_rounds
from strategies.core.privacy_config import PrivacyConfig
from strategies.core.robust import RobustConfig
from strategies.core.rounds import Round, RoundConfig, RoundPlan, StateT
from strategies.core.standstill import Standstill
from strategies.core.uncovered import warn_of_uncovered

_COUNT = "num_batches_tracked"
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class RoundStrategy(Strategy, Generic[StateT]):
    """A strategy whose round may have any number of exchanges, of any kinds.

    It runs on fedzo's engines through `run_rounds`, and, being a flwr Strategy, in any ServerApp
    through `start(grid, ...)`. The clients must run `clients.build_client_app`.
    """

    asks_in_waves: ClassVar[bool] = False
    """Whether clients work on while the server goes on (fedzo.protocol.wave)."""
    own_models: ClassVar[bool] = False
    """Whether every node has a model of its own, and none of them is told the server's x."""
    needs_own_x: ClassVar[bool] = False
    """Whether it counts on answers at exactly its own x, and on all of each: it adds up changes."""

    @property
    @abstractmethod
    def rounds(self) -> RoundConfig:
        """The settings of the rounds."""

    @abstractmethod
    def init(self, x: Float[Tensor, " d"], num_clients: int) -> StateT:
        """Return the state before the first round."""

    @abstractmethod
    def round(self, state: StateT, plan: RoundPlan) -> Round[StateT]:
        """Yield lists of exchanges, receive lists of replies, return the next state."""

    @property
    def robust(self) -> RobustConfig:
        """How malicious answers are withstood: not at all, unless a strategy says otherwise."""
        return RobustConfig()

    @property
    def remembers(self) -> bool:
        """Whether the robust rule is also asked about a table of all clients."""
        return False

    @property
    def privacy(self) -> PrivacyConfig | None:
        """What is claimed of clients' data; None where nothing is."""
        return None

    @property
    def on_failure(self) -> OnFailure:
        """What clients do where their code raises: they fail, unless a strategy says otherwise."""
        return "fail"

    def cohort_generator(self, seed: int, problem: int, round_index: int) -> np.random.Generator:
        """Return the generator that draws the cohort of a round; from the public seed."""
        return stream(seed, "cohort", problem, round_index)

    def published(self, state: StateT) -> Float[Tensor, " k"]:
        """Return what the last round has told of clients' data: x, unless it is something else."""
        return state.x

    def stretch(self, state: StateT) -> float:
        """Return how much longer what was published is than that to which the noise was added."""
        return 1.0

    def silenced(self, state: StateT) -> StateT:
        """Return a state whose next round makes no noise, for an audit."""
        return state

    def defended(self, vectors: Float[Tensor, "n d"], *, num_liars: int) -> Float[Tensor, "*m d"]:
        """Return what is made of vectors, liars' last, as their author would guess it."""
        guess, rule = stream(0, "attacker's guess"), self.robust.rule
        return rule(vectors, num_byzantine=self.robust.num_byzantine, generator=guess)

    def summary(self) -> None:
        """Log nothing: a run's settings are in its history and experiment file."""

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run on a flwr grid, as flwr's own strategies do.

        x is the concatenation of `initial_arrays` but the buffers in it, which come back as they
        are. `train_config` may hold `seed`, `query_budget` (all clients together) and the box
        `lower`, `upper` that the server projects x onto. F is the mean of the clients' values,
        asked as often as `evaluate_every` says. The wait for clients and for an exchange is
        `timeout`, or `timeout_s` of the strategy's own settings where that is shorter. Raises
        ConfigError for any other configuration, RunError when fewer than `min_answers` clients
        connect.
        """
        settings = _start_settings(train_config, evaluate_config)
        warn_of_uncovered(self, settings.seed)
        problem = OpenProblem(
            initial_x=_vector(initial_arrays), lower=settings.lower, upper=settings.upper
        )
        flower = FlowerEngine(grid)
        wait_s = min(timeout, self.rounds.timeout_s)
        num_clients = flower.wait_for_clients(self.rounds.min_answers, wait_s)
        capped = _Capped(flower, timeout)
        engine: Engine = Arriving(capped) if self.asks_in_waves else capped
        result = Result()
        kept = _keep_in(result, initial_arrays, evaluate_fn)
        callbacks: list[Callback] = [kept, Standstill(num_rounds=num_rounds)]
        run_rounds(
            self, engine, problem, settings.of_run(num_clients, num_rounds), callbacks=callbacks
        )
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Refuse: one list of messages cannot express a round of several exchanges."""
        raise self._wrapped()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Refuse, as configure_train does."""
        raise self._wrapped()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Refuse, as configure_train does."""
        raise self._wrapped()

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Refuse, as configure_train does."""
        raise self._wrapped()

    def _wrapped(self) -> RunError:
        return RunError(
            f"{type(self).__name__} runs whole rounds: call start(grid, ...) on it; it cannot be"
            " wrapped by strategies that call configure_train and aggregate_train"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSettings:
    """What `start` accepts in `train_config`; query_budget < 0 is no limit."""

    seed: int = 0
    query_budget: int = -1
    lower: float = -math.inf
    upper: float = math.inf

    def __post_init__(self) -> None:
        check_types(self)

    def of_run(self, num_clients: int, num_rounds: int) -> RunSettings:
        """Return the settings of a run among so many clients, of whom nobody knows who lies."""
        return RunSettings(
            num_clients=num_clients,
            num_rounds=num_rounds,
            seed=self.seed,
            query_budget=None if self.query_budget < 0 else self.query_budget,
            liars=None,
        )


def _start_settings(
    train_config: ConfigRecord | None, evaluate_config: ConfigRecord | None
) -> StartSettings:
    if evaluate_config:
        raise ConfigError(
            f"evaluate_config={dict(evaluate_config)} has no effect here; leave it out and set"
            " evaluate_every in the strategy's own config"
        )
    given: dict[str, Any] = dict(train_config or {})
    return build_config(StartSettings, given, section="train_config")


def _keep_in(result: Result, like: ArrayRecord, evaluate_fn: EvaluateFn | None) -> Callback:
    """Return the callback that fills flwr's Result round by round."""

    def keep(snapshot: Snapshot) -> None:
        record = snapshot.record
        arrays = _arrays_like(like, snapshot.state.x)
        result.arrays = arrays
        result.train_metrics_clientapp[record.round_index] = _metrics(record)
        if record.value is not None:
            value = MetricRecord({"value": record.value, **record.metrics})
            result.evaluate_metrics_clientapp[record.round_index] = value
        central = evaluate_fn(record.round_index, arrays) if evaluate_fn else None
        if central is not None:
            result.evaluate_metrics_serverapp[record.round_index] = central

    return keep


class _Capped(Middleware):
    """An engine that never waits longer than the caller of `start` allows."""

    def __init__(self, inner: FlowerEngine, timeout: float) -> None:
        super().__init__(inner)
        self._timeout = timeout

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        return self._inner.perform(exchanges, timeout_s=min(timeout_s, self._timeout))

    def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
        return super().begin(exchange, timeout_s=min(timeout_s, self._timeout))


def _optimized(arrays: ArrayRecord) -> list[str]:
    """Return the names of the arrays that x is made of: all but the buffers of a state dict.

    Buffers are arrays of whole numbers or flags beside floating ones, and the running statistics
    that stand beside a count of batches.
    """
    floating = [name for name, array in arrays.items() if array.numpy().dtype.kind == "f"]
    if not floating:
        return list(arrays)
    counts = [name for name in arrays if name.endswith(_COUNT)]
    kept = {n.removesuffix(_COUNT) + s for n in counts for s in ("running_mean", "running_var")}
    return [name for name in floating if name not in kept]


def _vector(arrays: ArrayRecord) -> Float[Tensor, " d"]:
    """Return the start; arrays of whole numbers alone are one, in float64."""
    parts = [torch.from_numpy(arrays[name].numpy()).reshape(-1) for name in _optimized(arrays)]
    if not parts:
        raise ConfigError("initial_arrays holds nothing to optimize; give the parameters")
    return check_start(torch.cat(parts), -math.inf, math.inf)


def _arrays_like(arrays: ArrayRecord, x: Float[Tensor, " d"]) -> ArrayRecord:
    """Return the arrays with x in the place of what is optimized, and buffers as they were."""
    shapes = {name: tuple(arrays[name].shape) for name in _optimized(arrays)}
    parts = x.split([torch.Size(shape).numel() for shape in shapes.values()])
    pairs = zip(shapes.items(), parts, strict=True)
    moved = {name: Array(part.reshape(shape).numpy()) for (name, shape), part in pairs}
    return ArrayRecord({name: moved.get(name, array) for name, array in arrays.items()})


def _metrics(record: RoundRecord) -> MetricRecord:
    return MetricRecord(
        {
            "queries": record.queries,
            "gradients": record.gradients,
            "examples": record.examples,
            "floats-up": record.floats_up,
            "floats-down": record.floats_down,
            "clients-asked": record.clients_asked,
            "clients-answered": record.clients_answered,
        }
    )

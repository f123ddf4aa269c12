"""Settings that are each right and do not go together, of a strategy with all that is around it."""

import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

from fedzo.compression.config import CompressionConfig
from fedzo.config import Scalar, require
from fedzo.errors import ConfigError
from fedzo.fleet.config import FleetConfig
from strategies.core.base import RoundStrategy
from strategies.core.method import defence_of
from strategies.core.waves import NO_CLOCK


@runtime_checkable
class Resolved(Protocol):
    """What is asked of an experiment (scenarios.runs.experiment.Experiment)."""

    @property
    def strategy(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def num_clients(self) -> int: ...
    @property
    def liars(self) -> Collection[int]: ...
    @property
    def settings(self) -> Mapping[str, Scalar]: ...
    def config(self, section: str) -> Any:
        """Return the settings of a section as its class."""
        ...


def check_combinations(experiment: Resolved, strategy: RoundStrategy[Any]) -> None:
    """Raise ConfigError where settings of an experiment do not go together."""
    _check_adversaries(experiment, strategy)
    _check_fleet(experiment)
    _check_arrivals(experiment, strategy)
    _check_compression(experiment, strategy)
    _check_judges(strategy, experiment.num_clients)


def _check_adversaries(experiment: Resolved, strategy: RoundStrategy[Any]) -> None:
    """Raise ConfigError for more liars than clients, and for rules that cannot bear as many."""
    liars = experiment.config("byzantine").num_clients
    require(
        liars < experiment.num_clients,
        "byzantine.num_clients",
        liars,
        f"below clients={experiment.num_clients}: somebody must be honest",
    )
    defence_of(strategy, experiment.num_clients).require()


def _check_fleet(experiment: Resolved) -> None:
    """Raise ConfigError for a clock without an end, and for a sample that is no secret any more."""
    fleet: FleetConfig = experiment.config("fleet")
    settings = experiment.settings
    if fleet.any and settings.get("strategy.timeout_s") == math.inf:
        raise ConfigError(
            "strategy.timeout_s=inf has no end on a virtual clock, where a lost answer costs all of"
            " it; set it to seconds"
        )
    if settings.get("strategy.secret_sample") and (fleet.online < 1 or fleet.diurnal > 0):
        raise ConfigError(
            "strategy.secret_sample=true counts on a sample of all clients, and with fleet.online"
            " below 1 or fleet.diurnal only those that can be reached are drawn; leave one out"
        )


def _check_arrivals(experiment: Resolved, strategy: RoundStrategy[Any]) -> None:
    """Raise ConfigError where a strategy takes answers as they arrive, and they do not, or lie."""
    if experiment.config("fleet").any or not strategy.asks_in_waves:
        return
    if experiment.engine == "inprocess":
        raise ConfigError(NO_CLOCK)
    if experiment.config("faults").reorder:
        raise ConfigError(
            "faults.reorder has no effect by arrival, where every answer comes alone: leave it out,"
            " or set fleet.preset"
        )
    attack = experiment.settings["byzantine.attack"]
    if experiment.liars and attack != "label_flip":
        raise ConfigError(
            f"byzantine.attack={attack} is made of the honest answers of the same exchange, and by"
            " arrival each comes alone: set fleet.preset, or byzantine.attack=label_flip"
        )


def _check_compression(experiment: Resolved, strategy: RoundStrategy[Any]) -> None:
    """Raise ConfigError where packed vectors would break what a strategy promises, or counts on."""
    config: CompressionConfig = experiment.config("compression")
    name = experiment.strategy
    told = (
        f"compression.up={config.up}" if config.up != "none" else f"compression.down={config.down}"
    )
    if config.up != "none" and strategy.privacy is not None:
        raise ConfigError(
            f"{told} would add to clients' vectors after they were clipped, and the epsilon of"
            f" {name} would not hold; leave it out"
        )
    if (config.up, config.down) != ("none", "none") and strategy.own_models:
        raise ConfigError(
            f"{told} is about one x, and peers of {name} have models of their own; leave it out"
        )
    if config.down != "none" and strategy.asks_in_waves:
        raise ConfigError(
            f"compression.down={config.down} does not go with {name}, which has no rounds, and"
            " whose clients work on an x of long ago; compress what comes up"
        )
    if (config.up, config.down) != ("none", "none") and strategy.needs_own_x:
        raise ConfigError(
            f"{told} does not go with {name}, which counts on answers at exactly its own x, and"
            " adds up all errors; leave it out"
        )


def _check_judges(strategy: RoundStrategy[Any], clients: int) -> None:
    """Raise ConfigError for more judges than clients, or than are asked."""
    rounds = strategy.rounds
    for name, judges in (("judges", rounds.judges), ("min_judges", rounds.min_judges)):
        require(judges <= clients, f"strategy.{name}", judges, f"at most clients={clients}")
    least, most = rounds.min_judges, rounds.judges or clients
    require(least <= most, "strategy.min_judges", least, f"at most strategy.judges={most}")

"""An experiment: everything that determines a run, as one frozen value and as a TOML file."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_type_hints

import tomli_w

from clients.rules import RULE_CONFIGS
from fedzo.adversary.lies import ByzantineConfig
from fedzo.compression.config import CompressionConfig
from fedzo.config import (
    Given,
    Scalar,
    as_seed,
    build_config,
    checked,
    config_values,
    field_names,
    in_words,
    require,
    unknown_key,
)
from fedzo.errors import ConfigError
from fedzo.fleet.config import FleetConfig
from fedzo.runtime.middleware.faulty import FaultConfig
from scenarios.runs.combinations import check_combinations
from scenarios.runs.effects import Effects
from scenarios.runs.names import (
    ENGINES,
    SCENARIOS,
    require_black_box,
    require_names,
    strategy_entry,
)
from scenarios.runs.own_strategy import named
from scenarios.runs.ownership import is_own, simulated_privacy
from scenarios.runs.sizes import check_counts, check_memory
from strategies.core.base import RoundStrategy

_AROUND: Mapping[str, type[Any]] = {
    "faults": FaultConfig,
    "byzantine": ByzantineConfig,
    "fleet": FleetConfig,
    "compression": CompressionConfig,
}
SECTIONS = ("scenario", "strategy", "client", "engine", *_AROUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A resolved experiment; `settings` holds every field of every config by dotted name."""

    scenario: str
    strategy: str
    engine: str = "inprocess"
    num_rounds: int
    num_clients: int
    seed: int = 0
    query_budget: int | None = None
    settings: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a line calls it."""
        return f"{self.scenario} / {self.strategy} / seed {self.seed}"

    @property
    def own_data(self) -> bool:
        """Whether it is about data of the user's own (see scenarios.runs.ownership)."""
        return is_own(self.config("scenario"))

    @property
    def liars(self) -> range:
        """The malicious clients: the last ones, where there is an attack."""
        byzantine: ByzantineConfig = self.config("byzantine")
        count = byzantine.num_clients if byzantine.active else 0
        return range(self.num_clients - count, self.num_clients)

    @property
    def known_liars(self) -> frozenset[int] | None:
        """The malicious clients, None in a deployment, where nobody knows them."""
        return None if self.engine == "superlink" else frozenset(self.liars)

    def section(self, name: str) -> dict[str, Scalar]:
        """Return the settings of one section without their prefix."""
        prefix = f"{name}."
        return {k.removeprefix(prefix): v for k, v in self.settings.items() if k.startswith(prefix)}

    def config(self, name: str) -> Any:
        """Build the config dataclass of a section."""
        cls = _config_class(name, self.scenario, self.strategy, self.engine)
        return build_config(cls, self.section(name), section=name)

    def to_toml(self) -> str:
        """Return the experiment as TOML that `fedzo run --config` accepts."""
        head = {k: v for k, v in asdict(self).items() if k != "settings" and v is not None}
        sections = {name: self.section(name) for name in SECTIONS if self.section(name)}
        return tomli_w.dumps({**head, "set": sections})

    @staticmethod
    def from_toml(text: str) -> "Experiment":
        """Return the experiment that `to_toml` wrote, without checking it again."""
        raw = tomllib.loads(text)
        sections = raw.pop("set", {})
        settings = {
            f"{s}.{name}": v for s, values in sections.items() for name, v in values.items()
        }
        if settings.get("strategy.adjacency") == "add_remove":  # by which earlier releases called
            settings["strategy.adjacency"] = "zero_out"  # what their noise hid
        found = Experiment(settings=settings, **raw)
        for name in raw:
            checked(name, getattr(found, name), get_type_hints(Experiment)[name])
        return found


def config_classes(scenario: str, strategy: str, engine: str) -> dict[str, type]:
    """Return the config class of each section; raises ConfigError for unknown names."""
    require_names(scenario, strategy, engine)
    return {name: _config_class(name, scenario, strategy, engine) for name in SECTIONS}


def _config_class(section: str, scenario: str, strategy: str, engine: str) -> type[Any]:
    """Return the config class of one section, which asks nothing of the others: where a client is
    made in another process, a strategy of the user's need not be there.
    """
    if section == "scenario":
        return SCENARIOS[scenario].config
    if section in ("strategy", "client"):
        entry = strategy_entry(strategy)
        return entry.config if section == "strategy" else entry.client_config
    if section == "engine":
        return ENGINES[engine][0]
    return _AROUND[section]


def make_experiment(
    scenario: str,
    strategy: str | type[RoundStrategy[Any]] | RoundStrategy[Any],
    *,
    engine: str = "inprocess",
    num_rounds: int | None = None,
    num_clients: int | None = None,
    seed: int = 0,
    query_budget: int | None = None,
    settings: Mapping[str, Given] | None = None,
    excused: Collection[str] = (),
) -> Experiment:
    """Resolve an experiment: given settings over what suits the scenario over general defaults.

    strategy: a name of the table, a reference such as mine.py:Mine, a class, or an object made of
    settings, which `settings` are then over. excused: settings that may have no effect, because
    nobody typed them, or for this run. Raises ConfigError for unknown names or keys, wrong types,
    values out of range, and others that have no effect, unless they say what holds anyway.
    """
    strategy, made_with = named(strategy)
    typed = {**made_with, **in_words(settings or {})}
    excused = {*excused, *made_with}
    config_classes(scenario, strategy, engine)
    build = SCENARIOS[scenario].build
    rounds = checked("rounds", build.default_rounds if num_rounds is None else num_rounds, int)
    clients = checked("clients", build.default_clients if num_clients is None else num_clients, int)
    seed, query_budget = as_seed(seed), checked("query_budget", query_budget, int | None)
    require(rounds >= 0, "rounds", rounds, "0 or more")
    require(clients >= 1, "clients", clients, "at least 1")
    check_counts(rounds, clients, query_budget)
    if query_budget is not None:
        require(
            query_budget >= clients,
            "query_budget",
            query_budget,
            f"at least {clients}, one query a client",
        )
    entry = strategy_entry(strategy)
    effects = effects_of(scenario, strategy, engine, typed)
    check_memory(clients, effects.values)
    effects.require(typed.keys() - excused)
    resolved = {k: v for k, v in effects.settings.items() if k not in entry.refused}
    if build.black_box:
        exact = resolved.get("client.gradient") == "exact"
        require_black_box(scenario, strategy, exact=exact)
    experiment = Experiment(
        scenario=scenario,
        strategy=strategy,
        engine=engine,
        num_rounds=rounds,
        num_clients=clients,
        seed=seed,
        query_budget=query_budget,
        settings=resolved,
    )
    check_combinations(experiment, build_strategy(experiment))
    return experiment


def effects_of(scenario: str, strategy: str, engine: str, given: Mapping[str, Scalar]) -> Effects:
    """Resolve settings, and find what has an effect; raises ConfigError as make_experiment."""
    classes, entry = config_classes(scenario, strategy, engine), strategy_entry(strategy)
    suggested = SCENARIOS[scenario].build.suggested.get(classes["client"], {})
    known = {f"{section}.{n}" for section, cls in classes.items() for n in field_names(cls)}
    usual = {**{k: v for k, v in suggested.items() if k in known}, **entry.preset}
    _check_keys({**usual, **given}, classes, entry.refused, strategy)
    world = _built(classes["scenario"], "scenario", given)
    if engine == "superlink" and "fleet.preset" in entry.preset:
        usual |= {"fleet.preset": "none"}  # machines take the time that they take
    usual = {**simulated_privacy(classes["strategy"], world, engine), **usual}
    values: dict[str, Scalar] = {}
    for section, cls in classes.items():
        made = config_values(_built(cls, section, {**usual, **given}))
        values.update({f"{section}.{name}": value for name, value in made.items()})
    heads = {"scenario": scenario, "strategy": strategy, "engine": engine, "rule": entry.rule}
    return Effects(classes, values, heads, usual)


def build_strategy(experiment: Experiment) -> RoundStrategy[Any]:
    """Build the experiment's strategy with the settings of its clients."""
    entry = strategy_entry(experiment.strategy)
    return entry.build(experiment.config("strategy"), client=experiment.config("client"))


def _built(cls: type, section: str, wanted: Mapping[str, Scalar]) -> Any:
    """Build the config of a section from the dotted settings that concern it."""
    prefix = f"{section}."
    own = {k.removeprefix(prefix): v for k, v in wanted.items() if k.startswith(prefix)}
    return build_config(cls, own, section=section)


def _check_keys(
    wanted: Mapping[str, Scalar],
    classes: Mapping[str, type],
    refused: Mapping[str, str],
    strategy: str,
) -> None:
    valid = [f"{section}.{name}" for section, cls in classes.items() for name in field_names(cls)]
    for key in wanted:
        if key in refused:
            raise ConfigError(f"{key} is refused: {refused[key]}")
        if key not in valid:
            raise _of_another(key, strategy, classes["client"]) or unknown_key(key, valid)


def _of_another(key: str, strategy: str, client: type) -> ConfigError | None:
    """Return the error for a setting that others have; None for any other.

    Others: scenarios, engines, and the clients of other strategies.
    """
    section, _, name = key.partition(".")
    if section == "client" and any(name in field_names(cls) for cls in RULE_CONFIGS.values()):
        return ConfigError(
            f"{key} is a setting of other strategies' clients; those of {strategy} have"
            f" {', '.join(field_names(client)) or 'none'}"
        )
    configs = {
        "scenario": {n: entry.config for n, entry in SCENARIOS.items()},
        "engine": {n: config for n, (config, _) in ENGINES.items()},
    }
    owners = [n for n, cls in configs.get(section, {}).items() if name in field_names(cls)]
    which = f"{section}{'s' * (len(owners) > 1)} {', '.join(owners)}"
    return ConfigError(f"{key} is a setting of the {which}, not of this one") if owners else None

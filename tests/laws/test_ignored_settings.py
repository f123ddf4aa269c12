"""A law over all settings of all configs: what has no effect is refused, whoever may be asked.

Found by walking the tables: a setting that somebody adds with a condition is under the law.
"""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest

from fedzo.config import Scalar, setting_hints
from fedzo.errors import ConfigError
from fedzo.used_with import conditions_of, unmet
from scenarios.attacks.attackers import ATTACKERS, make_attacker
from scenarios.runs.compare import planned
from scenarios.runs.config_file import read_experiment
from scenarios.runs.effects import Effects
from scenarios.runs.experiment import config_classes, effects_of, make_experiment
from scenarios.runs.experiment_file import sealed_toml
from scenarios.runs.grid import GridShape, run_grid
from scenarios.runs.names import ENGINES, SCENARIOS, STRATEGIES

_ENGINES = [name for name in ENGINES if name != "superlink"]
RUNS = [
    *[("quadratic", name, "inprocess") for name in STRATEGIES],
    *[(name, "fedzo", "inprocess") for name in SCENARIOS],
    *[(name, "diff2", "inprocess") for name in ("regression", "custom")],
    *[("quadratic", "fedzo", name) for name in _ENGINES],
]


def other(name: str, value: Scalar, hint: Any) -> Scalar:
    """Return a value that is allowed, as far as its type goes, and not the one that there is."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        choices = [c for arg in get_args(hint) for c in (arg, *get_args(arg))]
        named = [choice for choice in choices if isinstance(choice, str) and choice != value]
        return named[0] if named else "trimmed_mean" if name == "strategy.aggregator" else "x"
    if isinstance(value, int):
        return value + 1
    return 0.37 if value != 0.37 else 0.41


def without_effect() -> Iterator[tuple[str, str, str, str, Scalar]]:
    """Yield run, setting and another value, where a default run has no use for the setting."""
    for names in RUNS:
        effects = effects_of(*names, {})
        everything = {**effects.heads, **effects.values}
        for key in effects.conditions:
            if key not in everything or unmet(key, everything, effects.conditions) is None:
                continue
            section, _, setting = key.partition(".")
            hint = setting_hints(effects.classes[section])[setting]
            yield (*names, key, other(key, everything[key], hint))


CASES = sorted(set(without_effect()), key=str)


@pytest.mark.more
@pytest.mark.parametrize(("scenario", "strategy", "engine", "key", "value"), CASES)
def test_a_setting_without_effect_is_refused(
    scenario: str, strategy: str, engine: str, key: str, value: Scalar
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_experiment(scenario, strategy, engine=engine, settings={key: value})
    sentence, section = str(caught.value), key.partition(".")[0]
    known = "has no effect with" in sentence or "must be" in sentence or "needs" in sentence
    assert key.removeprefix(f"{section}.") in sentence
    assert known, sentence


def test_the_law_is_about_many_settings() -> None:
    keys = {key for *_, key, _ in CASES}
    assert len(keys) >= 55
    assert {
        "scenario.alpha", "scenario.data_dir", "strategy.outlier_multiple", "client.mu",
        "byzantine.scale", "strategy.timeout_s", "strategy.local_lr", "strategy.min_judges",
    } <= keys  # fmt: skip


@pytest.mark.parametrize(("scenario", "strategy", "engine"), RUNS)
def test_what_nobody_typed_is_never_refused(scenario: str, strategy: str, engine: str) -> None:
    effects = effects_of(scenario, strategy, engine, {})
    listed = effects.settings
    again = {k: v for k, v in listed.items() if k not in STRATEGIES[strategy].refused}
    if SCENARIOS[scenario].build.black_box and STRATEGIES[strategy].rule == "first_order":
        return
    made = make_experiment(scenario, strategy, engine=engine, settings=again)
    assert made.settings == make_experiment(scenario, strategy, engine=engine).settings


USED: list[tuple[str, str, dict[str, Scalar]]] = [
    ("classification", "fedavg", {"scenario.alpha": 0.3, "scenario.partition": "dirichlet"}),
    ("classification", "fedavg", {"scenario.data_dir": "/x", "scenario.dataset": "idx"}),
    ("classification", "fedavg", {"scenario.min_size": 5}),
    ("classification", "fedavg", {"client.sampling": "balanced", "client.batch_size": 4}),
    ("quadratic", "fedzo", {"client.momentum": 0.5, "client.optimizer": "sgd"}),
    ("quadratic", "fedzo", {"client.momentum": 0.5}),  # beta1 of Adam
    ("quadratic", "fedavg", {"client.momentum": 0.5, "client.optimizer": "lion"}),
    ("quadratic", "fedzo", {"client.num_directions": 7, "client.estimator": "central"}),
    ("quadratic", "fedavg", {"strategy.server_momentum": 0.5}),
    ("quadratic", "fedavg", {"strategy.aggregator": "median"}),
    ("quadratic", "fedsaga", {"strategy.server_momentum": 0.5}),
    ("quadratic", "fedsaga", {"strategy.local_steps": 3, "strategy.local_lr": 0.2}),
    ("quadratic", "fedamd", {"client.gradient": "zeroth_order", "client.mu": 0.1}),
    ("quadratic", "monna", {"strategy.lr_period": 5}),
    (
        "quadratic",
        "fedavg",
        {
            "strategy.aggregator": "trimmed_mean",
            "strategy.num_byzantine": 1,
            "strategy.outlier_multiple": 2.0,
            "byzantine.attack": "foe",
            "byzantine.num_clients": 1,
            "byzantine.scale": 3.0,
        },
    ),
    ("regression", "diff2", {"strategy.routine": "bvr_l_sgd", "strategy.local_lr": 0.1}),
    ("regression", "diff2", {"strategy.restart_share": 0.5}),
    ("quadratic", "fzoos", {"strategy.variant": "paper", "client.anchor_queries": 20}),
]


@pytest.mark.parametrize(("scenario", "strategy", "settings"), USED)
def test_the_same_settings_are_taken_where_they_are_used(
    scenario: str, strategy: str, settings: dict[str, Scalar]
) -> None:
    made = make_experiment(scenario, strategy, settings=settings)
    assert {key: made.settings[key] for key in settings} == settings


def test_the_sentence_says_what_why_and_the_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        make_experiment("classification", "fedavg", settings={"scenario.alpha": 0.3})
    assert str(caught.value) == (
        "scenario.alpha=0.3 has no effect with scenario.partition=by_label; leave it out, or use it"
        " with scenario.partition=dirichlet or quantity_skew"
    )


def test_a_condition_on_a_setting_without_effect_does_not_hold() -> None:
    """calibration=tight is the default, but of no use where the noise is given."""
    settings: dict[str, Scalar] = {"strategy.noise_multiplier": 2.0, "strategy.restart_share": 0.5}
    with pytest.raises(ConfigError, match=r"restart_share=0\.5 has no effect with .*multiplier=2"):
        make_experiment("regression", "diff2", settings=settings)


def test_a_rule_that_is_the_mean_without_liars_says_so() -> None:
    with pytest.raises(ConfigError, match=r"num_byzantine above 0, where it else is the mean"):
        make_experiment("quadratic", "fedavg", settings={"strategy.aggregator": "trimmed_mean"})


BASE: Mapping[str, Any] = {"scenario": "quadratic", "num_rounds": 1}
ADAGRAD = {"a:strategy.server_optimizer": "adagrad"}


def test_a_comparison_may_set_what_one_of_its_runs_uses() -> None:
    shared = {**ADAGRAD, "strategy.server_momentum": 0.5}
    assert planned({**BASE, "settings": shared}, ["a=fedavg", "b=fedavg"], [0])
    with pytest.raises(
        ConfigError, match=r"server_momentum=0\.5 has no effect with strategy\.serv"
    ):
        planned({**BASE, "settings": shared}, ["a=fedavg"], [0])
    own = {**ADAGRAD, "a:strategy.server_momentum": 0.5, "b:strategy.server_momentum": 0.4}
    with pytest.raises(ConfigError, match=r"server_momentum=0\.5 has no effect"):
        planned({**BASE, "settings": own}, ["a=fedavg", "b=fedavg"], [0])


def test_a_grid_may_set_what_one_of_its_attacks_uses() -> None:
    settings: dict[str, Scalar] = {
        "scenario.dim": 4,
        "strategy.aggregator": "median",
        "byzantine.num_clients": 1,
        "byzantine.scale": 3.0,
    }
    base = {**BASE, "settings": settings}
    run_grid(base, ["fedavg"], [0], GridShape(lies=["none", "foe"]))
    with pytest.raises(ConfigError, match=r"byzantine\.scale=3\.0 has no effect"):
        run_grid(base, ["fedavg"], [0], GridShape(lies=["none", "sign_flip"]))


def test_a_file_that_a_run_has_written_is_run_again(tmp_path: Any) -> None:
    """What nobody has edited nobody has typed; what somebody has is looked at."""
    settings: dict[str, Scalar] = {"strategy.server_momentum": 0.5, **{"scenario.dim": 4}}
    made = make_experiment(
        "quadratic",
        "fedavg",
        settings={**settings, "strategy.server_optimizer": "adagrad"},
        excused=["strategy.server_momentum"],
    )
    path = tmp_path / "experiment.toml"
    path.write_text(sealed_toml(made.to_toml()))
    assert make_experiment(**read_experiment(path)) == made
    path.write_text(made.to_toml())
    with pytest.raises(ConfigError, match=r"server_momentum=0\.5 has no effect"):
        make_experiment(**read_experiment(path))


@pytest.mark.parametrize("name", ATTACKERS)
def test_attackers_refuse_settings_without_effect(name: str) -> None:
    config, tells = ATTACKERS[name].config, ATTACKERS[name].needs[0]
    assert make_attacker(name, tells, {})
    for setting, conditions in conditions_of(config).items():
        for condition in conditions:
            [about] = condition.settings
            if about.startswith("attack."):
                with pytest.raises(ConfigError, match=f"{setting}=.* has no effect"):
                    make_attacker(name, tells, {setting: 3}, coordinates="waves", norm="l0")
                continue
            spoilt = {"estimator": "coordinate", "optimizer": "adagrad", "handover": 1.0}[about]
            value: Scalar = {"directions": "sphere", "momentum": 0.3}.get(setting, 4)
            with pytest.raises(ConfigError, match=rf"attacker\.{setting}=.* has no effect"):
                make_attacker(name, tells, {about: spoilt, setting: value})


def test_every_condition_names_settings_that_there_are() -> None:
    for names in RUNS:
        effects: Effects = effects_of(*names, {})
        sections = config_classes(*names)
        for key, conditions in effects.conditions.items():
            for condition in (c for one in conditions for c in (one, *one.others)):
                for name in condition.settings:
                    section, dot, _ = name.partition(".")
                    assert name in effects.heads or (dot and section in sections), (key, name)
                assert condition.words()

"""What a user may type changes a run, or is refused: every setting of every strategy is changed.

The other half of test_ignored_settings, which walks over what is declared to have no effect; this
finds what nobody declared.
"""

import warnings
from typing import Any

import pytest
from golden.runs import QUADRATIC, written
from laws.test_ignored_settings import other
from worlds import ON_VECTORS

from fedzo.config import Scalar, setting_hints
from fedzo.errors import ConfigError, RunError
from scenarios.runs.experiment import effects_of, make_experiment
from scenarios.runs.simulate import simulate

FOR_TROUBLE = {
    "strategy.min_answers", "strategy.max_failed_rounds", "strategy.non_finite",
    "client.non_finite", "faults.reorder",
}  # fmt: skip
"""What a run without trouble has no use for; replies that come in another order are the same."""
LATER = {
    "fzoos": {"max_step", "max_rows", "design", "shared_every", "private_gain", "kernel"},
    "fedpage": {"full_probability"},
    "bvr_l_sgd": {"restart_period"},
    "diff2": {"restart_period"},
    "diff2_zo": {"restart_period"},
    "square": {"noise_std", "heterogeneity", "area", "horizon", "line_search"},
    "thompson": {
        "noise_std", "heterogeneity", "lengthscale", "noise", "spread", "max_rows", "down", "floor",
        "up",
    },
    "relizo": {"reuse_radius"},
    "fzoos_async": {"max_rows", "design", "shared_every", "fleet.gradient_s", "fleet.diurnal"},
    "fedbuff": {"fleet.diurnal"},
    "fedbuff_zo": {"fleet.gradient_s", "fleet.diurnal"},
    "fedasync": {"fleet.diurnal"},
    "fedasync_zo": {"client.project", "fleet.gradient_s", "fleet.diurnal"},
}  # fmt: skip
"""What has its effect after more than four rounds, on F that is no mean of many clients, or on a
fleet that is awake, and takes no gradients."""
CAPPED = {"client.num_directions", "strategy.num_directions"}
"""At most as many as there are coordinates."""


def run(strategy: str, settings: dict[str, Any]) -> dict[str, Any]:
    made = make_experiment(
        "quadratic", strategy, num_rounds=4, num_clients=5, seed=7, settings=settings
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return written(simulate(made))


def without_effect(strategy: str) -> list[str]:
    """Return the settings that were taken, and changed nothing."""
    base = dict(QUADRATIC)
    if "strategy.participation" not in effects_of("quadratic", strategy, "inprocess", {}).values:
        del base["strategy.participation"]
    try:
        whole = run(strategy, base)
    except ConfigError:  # privacy of records asks everybody
        base["strategy.participation"] = 1.0
        whole = run(strategy, base)
    effects, found = effects_of("quadratic", strategy, "inprocess", {}), []
    for key, value in effects.values.items():
        section, _, name = key.partition(".")
        if key in base or section == "engine" or key == "client.compile":  # tested where it is
            continue
        changed: Scalar = other(key, value, setting_hints(effects.classes[section])[name])
        try:
            if run(strategy, {**base, key: changed}) == whole:
                found.append(key)
        except (ConfigError, RunError):  # it is refused, or does too much
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ON_VECTORS)
def test_a_setting_that_is_taken_changes_the_run(strategy: str) -> None:
    later = {f"{s}.{name}" for s in ("scenario", "strategy") for name in LATER.get(strategy, ())}
    later |= {name for name in LATER.get(strategy, ()) if "." in name}
    assert set(without_effect(strategy)) <= FOR_TROUBLE | CAPPED | later

"""What is said of a run whose x stands still: the setting that would help."""

import pytest

from fedzo.errors import FedzoWarning
from fedzo.objectives.objective import CallableObjective
from scenarios import federate
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from scenarios.runs.steps import watch


@pytest.mark.parametrize(
    ("strategy", "scenario", "rate"),
    [
        ("dp_gd", "regression", "strategy.server_lr"),
        ("fedavg", "quadratic", "strategy.local_lr"),
        ("fzoos", "quadratic", "strategy.initial_step"),
        ("seedzo", "quadratic", "strategy.server_lr"),
        ("thompson", "quadratic", "the step of the method"),
    ],
)
def test_the_step_that_is_named_has_an_effect(strategy: str, scenario: str, rate: str) -> None:
    assert watch(make_experiment(scenario, strategy)).rate == rate


def test_the_warning_names_it() -> None:
    tiny = {"strategy.clip_norm": 1e-300}
    made = make_experiment("regression", "dp_gd", num_rounds=3, num_clients=3, settings=tiny)
    with pytest.warns(FedzoWarning, match="raise strategy.server_lr, unless"):
        simulate(made)


def test_functions_of_ones_own_are_watched_too() -> None:
    def flat(_: int) -> CallableObjective:
        return CallableObjective(function=lambda _: 1.0, dim=3)

    with pytest.warns(FedzoWarning, match=r"raise client.mu or strategy.local_lr"):
        federate(flat, num_clients=2, num_rounds=3, strategy="fedzo")

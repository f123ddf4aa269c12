"""Robust rules inside strategies: what converges, what is refused, what spoils a round."""

from typing import Any

import pytest
import torch

from fedzo import aggregation
from fedzo.aggregation import parse_aggregator
from fedzo.errors import ConfigError, RunError
from fedzo.randomness import stream
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import RunResult, simulate
from strategies.core.robust import RobustConfig, agree
from strategies.core.rounds import RoundPlan

ROBUST = ["trimmed_mean", "median", "nnm | trimmed_mean", "geometric_median", "caf", "multi_krum"]


def run(strategy: str, *, clients: int = 20, rounds: int = 40, **settings: Any) -> RunResult:
    given = {f"strategy.{k}": v for k, v in settings.items() if k in ("aggregator",)}
    rest = {k.replace("__", "."): v for k, v in settings.items() if k not in ("aggregator",)}
    made = make_experiment(
        "quadratic",
        strategy,
        num_rounds=rounds,
        num_clients=clients,
        settings={"scenario.dim": 60, **given, **rest},
    )
    return simulate(made)


def attacked(strategy: str, aggregator: str, attack: str, **settings: Any) -> float:
    """Return F at the end over F at the start, above the optimum, with 4 of 20 malicious."""
    f = 0 if aggregator == "mean" else 4
    result = run(
        strategy,
        aggregator=aggregator,
        strategy__num_byzantine=f,
        byzantine__attack=attack,
        byzantine__num_clients=4,
        **settings,
    )
    gaps = [record.metrics["gap"] for record in result.records]
    return gaps[-1] / gaps[0]


@pytest.mark.more
@pytest.mark.parametrize(
    "aggregator",
    [*ROBUST[:3], *(pytest.param(rule, marks=pytest.mark.slow) for rule in ROBUST[3:])],
)
def test_twenty_scalars_are_enough_to_withstand_four_of_twenty(aggregator: str) -> None:
    assert attacked("seedzo", aggregator, "scaled_sign_flip", rounds=150) < 0.02


def test_the_mean_does_not_withstand_them() -> None:
    assert attacked("seedzo", "mean", "scaled_sign_flip", rounds=150) > 0.9
    assert attacked("seedzo", "mean", "inner_product", byzantine__scale=10.0) > 1.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("fedzo", {}),
        ("fedprox", {}),
        ("scaffold1", {}),
        ("scaffold2", {}),
        ("fzoos", {}),
        ("fzoos", {"strategy__variant": "on_client", "strategy__max_rows": 60, "rounds": 8}),
        (
            "fzoos",
            {
                "strategy__variant": "paper",
                "client__num_features": 50,
                "strategy__local_steps": 2,
                "rounds": 12,
            },
        ),
        ("dshb", {"strategy__local_lr": 0.05, "client__gradient": "zeroth_order"}),
        ("fedavg", {"strategy__local_lr": 0.1}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_every_averaging_strategy_can_be_robust(strategy: str, more: dict[str, Any]) -> None:
    more = {"rounds": 20, "byzantine__scale": 30.0, **more}
    robust = attacked(strategy, "nnm | trimmed_mean", "inner_product", **more)
    broken = attacked(strategy, "mean", "inner_product", **more)
    assert robust < 0.7
    assert robust < 0.6 * broken


@pytest.mark.parametrize(
    "rule", ["krum", "multi_krum", "geometric_median", "caf", "smea", "minimum_diameter"]
)
def test_rules_on_scalars_are_the_rules_on_vectors(rule: str) -> None:
    """Orthonormal directions are an isometry: rule(a) U = rule(a U)."""
    generator = stream(0, "isometry")
    directions, _ = torch.linalg.qr(torch.from_numpy(generator.standard_normal((40, 8))))
    slopes = torch.from_numpy(generator.standard_normal((9, 8)))
    function = getattr(aggregation, rule)
    low = function(slopes, num_byzantine=3) @ directions.T
    high = function(slopes @ directions.T, num_byzantine=3)
    torch.testing.assert_close(low, high, rtol=1e-6, atol=1e-6)


def test_agreement_is_centered_on_the_aggregate() -> None:
    vectors = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [99.0, 0.0]])
    config = RobustConfig(aggregator="median", num_byzantine=1)
    plan = RoundPlan(round_index=1, num_clients=4, cohort=range(4))
    agreed, kept = agree(vectors, config, plan, purpose="test")
    assert kept.tolist() == [0, 1, 2]
    torch.testing.assert_close(agreed.mean(dim=0), torch.tensor([1.5, 0.5]))
    torch.testing.assert_close(agreed[1] - agreed[0], vectors[1] - vectors[0])
    everybody, all_of_them = agree(vectors, RobustConfig(), plan, purpose="test")
    assert everybody is vectors
    assert len(all_of_them) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"strategy.aggregator": "median", "strategy.num_byzantine": 3},
            "more than 6 clients, got 5",
        ),
        (
            {
                "strategy.aggregator": "median",
                "strategy.num_byzantine": 2,
                "strategy.participation": 0.5,
            },
            "num_byzantine=2 needs more than 4 clients, got 2; lower num_byzantine or raise",
        ),
        ({"strategy.num_byzantine": 1}, "a mean withstands nobody"),
        ({"strategy.aggregator": "medain"}, "did you mean median"),
        ({"strategy.aggregator": "median", "strategy.weighting": "examples"}, "set it to uniform"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        make_experiment("quadratic", "fedzo", num_clients=5, settings=settings)
    assert words in str(error.value)


def test_private_directions_cannot_be_compared() -> None:
    settings = {"strategy.aggregator": "median", "strategy.design": "private"}
    with pytest.raises(ConfigError, match="design=private must be auto or shared"):
        make_experiment("quadratic", "fzoos", settings=settings)


def test_dropouts_below_the_bound_spoil_rounds_and_end_the_run_with_the_bound() -> None:
    settings = {"aggregator": "median", "strategy__num_byzantine": 2, "faults__crash": 0.5}
    with pytest.raises(
        RunError, match=r"round \d+: num_byzantine=2 needs more than 4 clients, got"
    ):
        run("fedzo", clients=5, rounds=60, strategy__max_failed_rounds=1, **settings)
    result = run("fedzo", clients=5, rounds=10, strategy__max_failed_rounds=100, **settings)
    assert result.records[-1].round_index == 10


def test_infinite_answers_are_passed_to_the_rule_or_rejected() -> None:
    both = [
        attacked("fedzo", "trimmed_mean", "infinity", strategy__non_finite=how, rounds=8)
        for how in ("pass", "reject")
    ]
    assert both[0] < 0.8
    # Rejected or left out by the rule: the same vectors are left, but f is spent only by the rule.
    assert both[1] < 0.8


def test_centered_clipping_remembers_the_last_result() -> None:
    text = "centered_clipping(radius=0.1)"
    assert parse_aggregator(text).learns
    once = run("fedzo", aggregator=text, rounds=1)
    twice = run("fedzo", aggregator=text, rounds=12)
    assert twice.final_value is not None
    assert once.final_value is not None
    assert twice.final_value < once.final_value


def test_liars_cannot_veto_through_the_safeguard() -> None:
    robust = attacked(
        "fedzo",
        "trimmed_mean",
        "inner_product",
        byzantine__scale=100.0,
        strategy__safeguard=True,
        rounds=20,
    )
    assert robust < 0.8


@pytest.mark.parametrize("aggregator", ["trimmed_mean", "caf", "geometric_median", "smea"])
@pytest.mark.parametrize("attack", ["infinity", "inner_product"])
def test_infinite_and_overflowing_lies_count_among_the_liars(attack: str, aggregator: str) -> None:
    result = run(
        "fedzo",
        clients=10,
        rounds=3,
        aggregator=aggregator,
        strategy__num_byzantine=4,
        byzantine__attack=attack,
        byzantine__num_clients=4,
        **({"byzantine__scale": 1e200} if attack == "inner_product" else {}),
    )
    assert result.final_value is not None
    assert result.initial_value is not None
    assert result.final_value < result.initial_value


def test_a_learning_mimic_and_answers_of_changing_width() -> None:
    assert attacked("fzoos", "trimmed_mean", "mimic_learned", rounds=3) < 1


def test_a_search_goes_on_where_too_few_are_left_for_the_rule() -> None:
    result = run(
        "fedzo",
        clients=9,
        rounds=6,
        aggregator="trimmed_mean",
        strategy__num_byzantine=4,
        strategy__max_failed_rounds=100,
        byzantine__attack="alie_searched",
        byzantine__num_clients=4,
        faults__crash=0.2,
    )
    assert result.records[-1].round_index == 6

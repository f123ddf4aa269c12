"""The norm test: by hand, its laws, and what a run reports."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from fedzo.errors import ConfigError
from fedzo.protocol.questions.anchored import AnchorConfig, Anchored
from fedzo.randomness import stream
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from strategies.anchored.norm_test import Control, NormTestConfig, first_control, renewed
from strategies.core.asking import Heard
from strategies.core.rounds import RoundPlan

PLAN = RoundPlan(round_index=1, num_clients=50, cohort=range(10))


def told(variances: torch.Tensor, examples: int = 1000) -> Heard[Anchored]:
    n = len(variances)
    counts = {"num_examples": dict.fromkeys(range(n), examples)}
    return Heard(range(n), Anchored(variance=variances.unsqueeze(1)), counts)


def test_a_batch_by_hand() -> None:
    """V = 4, eta = 0.25, b = 10, n = 10 clients: |v|^2 = 0.29 - 0.04 of noise is 0.25 of gradient.

    So 4 / (10 * 0.0625 * 0.25) = 25.6 examples of each; 32 are the next that eight parts make up.
    """
    config = NormTestConfig(norm_test=0.25)
    control = Control(True, "anchor_batch_size", 10)
    mean = torch.tensor([0.3, 0.4]) * math.sqrt(0.29 / 0.25)
    after = renewed(control, config, PLAN, told(torch.full((10,), 4.0)), mean.expand(10, 2), mean)
    assert after.size == 32
    assert after.within == 4.0
    assert after.between == 0.0
    assert after.cohort_size == 10, "the cohort was not to adapt"


def test_what_has_grown_does_not_shrink_and_ends_at_everything() -> None:
    config = NormTestConfig(norm_test=0.25)
    mean = torch.tensor([0.3, 0.4])
    grown = Control(True, "anchor_batch_size", 300)
    same = renewed(grown, config, PLAN, told(torch.full((10,), 4.0)), mean.expand(10, 2), mean)
    assert same.size == 304, "the next that eight parts make up"
    nothing = renewed(grown, config, PLAN, told(torch.zeros(10)), mean.expand(10, 2), mean)
    assert nothing.size == 304
    huge = renewed(grown, config, PLAN, told(torch.full((10,), 700.0)), mean.expand(10, 2), mean)
    assert huge.size == 0, "0 is all examples"
    at_rest = renewed(grown, config, PLAN, told(torch.ones(10)), 0 * mean.expand(10, 2), 0 * mean)
    assert at_rest.size == 600, "twice as many where nothing but noise is seen"
    directions = Control(True, "anchor_directions", 1)
    many = renewed(directions, config, PLAN, told(torch.ones(10) * 9), mean.expand(10, 2), mean)
    assert many.size == 2, "never more than dimensions"


@pytest.mark.parametrize("between", [0.0, 0.5])
def test_total_variance_is_taken_apart(between: float) -> None:
    """Gradients of batches of 20 with example variance 3 around clients with their own means."""
    n, d, batch, config = 20000, 3, 20, NormTestConfig(norm_test=0.1)
    random = stream(0, "variance")
    centers = torch.from_numpy(random.standard_normal((n, d))) * math.sqrt(between / d)
    noise = torch.from_numpy(random.standard_normal((n, d))) * math.sqrt(3.0 / batch / d)
    gradients = 5 + centers + noise
    control = Control(True, "anchor_batch_size", batch)
    reply = told(torch.full((n,), 3.0, dtype=torch.float64))
    after = renewed(control, config, PLAN, reply, gradients, gradients.mean(0))
    assert after.within == pytest.approx(3.0)
    assert after.between == pytest.approx(between, abs=5 * 0.65 * math.sqrt(2 / (n * d)))


def test_the_cohort_follows_the_variance_between_clients() -> None:
    """|v|^2 = 25 less 0.8 of noise, eta = 0.1: 10 / 0.242 = 41.3 clients."""
    config = NormTestConfig(norm_test=0.1, adapt_cohort=True)
    mean = torch.tensor([3.0, 4.0])
    apart = mean + torch.tensor([[3.0, 0], [-3, 0]]).repeat(5, 1)
    after = renewed(
        Control(True, "anchor_batch_size", 0), config, PLAN, told(torch.zeros(10)), apart, mean
    )
    assert after.between == pytest.approx(10.0)
    assert after.cohort_size == 42


@pytest.mark.parametrize(
    ("length", "batch", "between"), [(1.0, 8, 0.0), (1.0, 8, 0.5), (0.05, 4096, 0.0)]
)
def test_the_batch_is_the_one_that_a_gaussian_oracle_needs(
    length: float, batch: int, between: float
) -> None:
    """Also near an optimum, where much of |v|^2 is noise: 25,600 examples of each of 16 clients."""
    n, d, within, eta = 16, 400, 64.0, 0.25
    exact = within / (n * eta**2 * length**2)
    config, plan = NormTestConfig(norm_test=eta), replace(PLAN, num_clients=100_000)
    reply = told(torch.full((n,), within, dtype=torch.float64), examples=10**6)
    spread, found = math.sqrt((within / batch + between) / d), []
    for seed in range(60):
        noise = torch.from_numpy(stream(seed, "oracle").standard_normal((n, d)))
        gradients = spread * noise
        gradients[:, 0] += length
        control = Control(True, "anchor_batch_size", batch)
        after = renewed(control, config, plan, reply, gradients, gradients.mean(dim=0))
        found.append(after.size)
    assert sorted(found)[30] == pytest.approx(exact, rel=0.1)


def test_without_the_test_nothing_is_reported_or_changed() -> None:
    own = AnchorConfig(anchor_batch_size=7)
    control = first_control(NormTestConfig(), own)
    assert control.report == {}
    assert (control.settings(own), control.micro_batches) == (own, 0)
    mean = torch.ones(2)
    same = renewed(control, NormTestConfig(), PLAN, told(torch.ones(10)), mean.expand(10, 2), mean)
    assert same is control


@pytest.mark.more
@pytest.mark.parametrize("strategy", ["fedamd", "fedsaga", "fedpage"])
def test_a_run_reports_both_variances_and_its_batches_grow(strategy: str) -> None:
    batch = "client.batch_size" if strategy == "fedsaga" else "client.anchor_batch_size"
    settings = {
        "scenario.dataset": "digits",
        "strategy.norm_test": 0.5,
        "strategy.adapt_cohort": True,
        "strategy.participation": 0.2,
        batch: 8,
    }
    made = make_experiment("classification", strategy, num_rounds=8, settings=settings)
    records = simulate(made).records
    sizes = [r.metrics["anchor_batch_size"] or math.inf for r in records]
    cohorts = [max(r.metrics["cohort_size"], 4) for r in records]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 8
    assert cohorts == sorted(cohorts)
    assert 4 < cohorts[-1] <= 20
    assert records[-1].metrics["within_variance"] > 0
    assert len(records[-1].clients) == cohorts[-2]


def test_directions_grow_for_zeroth_order_anchors() -> None:
    settings = {
        "strategy.norm_test": 0.5,
        "client.gradient": "zeroth_order",
        "client.num_directions": 5,
        "scenario.dim": 60,
        "strategy.server_lr": 0.01,
    }
    made = make_experiment("quadratic", "fedsaga", num_rounds=20, settings=settings)
    sizes = [r.metrics["anchor_directions"] for r in simulate(made).records]
    assert sizes == sorted(sizes)
    assert 5 == sizes[0] < sizes[-1] <= 60


@pytest.mark.parametrize("lie", [float("nan"), float("inf"), 1e30, -5.0])
def test_a_liar_does_not_steer_what_honest_clients_pay(lie: float) -> None:
    config = NormTestConfig(norm_test=0.25, aggregator="trimmed_mean", num_byzantine=2)
    control = Control(True, "anchor_batch_size", 16)
    variances = torch.full((10,), 4.0)
    variances[:2] = lie
    mean = torch.tensor([0.3, 0.4])
    gradients = mean.repeat(10, 1)
    gradients[:2] = lie
    after = renewed(control, config, PLAN, told(variances), gradients, mean)
    assert after.size == 40, "of the 8 nearest: 0.5 / (0.0625 (0.25 - 0.03125)) = 36.6"
    assert after.between == pytest.approx(0.0, abs=1e-6)


def test_answers_that_say_nothing_of_the_variance_change_nothing() -> None:
    config = NormTestConfig(norm_test=0.25)
    control = Control(True, "anchor_batch_size", 16)
    mean = torch.tensor([0.3, 0.4])
    nan = told(torch.full((10,), torch.nan))
    assert renewed(control, config, PLAN, nan, mean.expand(10, 2), mean) == control
    assert "within_variance" not in control.report


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapt_cohort": True}, "adapt_cohort=true needs norm_test above 0"),
        ({"adapt_cohort": True, "norm_test": 1.0, "num_byzantine": 1}, "would not follow"),
    ],
)
def test_what_would_have_no_effect_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NormTestConfig(**settings)


def test_objectives_without_examples_are_named() -> None:
    made = make_experiment("quadratic", "fedamd", settings={"strategy.norm_test": 0.5})
    with pytest.raises(ConfigError, match=r"strategy\.norm_test needs objectives over examples"):
        simulate(made)

"""The rules `momentum` and the sampling of minibatches."""

import numpy as np
import pytest
import torch
from worlds import clients_of

from clients.averaging.momentum import MODEL, MOMENTUM, train_momentum, train_own_model
from clients.core.local import balanced, minibatches
from fedzo.errors import ConfigError
from fedzo.objectives.looped_cohort import LoopedCohort, LoopedFiniteSums
from fedzo.objectives.objective import ModuleObjective, TorchObjective
from fedzo.protocol.questions import MomentumSteps, OwnModel
from fedzo.protocol.questions.training_config import MinibatchConfig, MomentumConfig
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

D = 3


def cohort() -> LoopedCohort:
    return LoopedCohort(
        [
            TorchObjective(function=lambda x, c=c: 0.5 * ((x - c) ** 2).sum(-1), dim=D)
            for c in (0.0, 4.0)
        ]
    )


def steps(cls, x, states, **config):
    settings = MomentumConfig(**config)
    question = cls(x=x, settings=settings, local_steps=1, local_lr=0.1)
    rule = {MomentumSteps: train_momentum, OwnModel: train_own_model}[cls]
    answer, after = rule(question, clients_of(cohort(), states))
    return answer.tensors(), after


def test_momentum_is_a_geometric_sum_of_gradients() -> None:
    x, states = torch.ones(D).double(), [{}, {}]
    gradients = []
    for _ in range(4):
        answer, states = steps(MomentumSteps, x, states, beta=0.8)
        gradients.append(torch.stack([x - 0.0, x - 4.0]))
        x = x + answer["update"].mean(dim=0)
    expected = sum(0.2 * 0.8 ** (3 - k) * g for k, g in enumerate(gradients))
    torch.testing.assert_close(torch.stack([s[MOMENTUM] for s in states]), expected)
    torch.testing.assert_close(answer["update"], -0.1 * expected)


def test_variance_of_the_momentum_is_that_of_the_theory() -> None:
    """(1 - beta) / (1 + beta) sigma^2 for independent gradients, within 5 standard errors."""
    beta, generator = 0.8, np.random.default_rng(0)
    m = np.zeros(20_000)
    for _ in range(60):
        m = beta * m + (1 - beta) * generator.normal(size=m.shape)
    expected = (1 - beta) / (1 + beta)
    assert abs(m.var() - expected) < 5 * expected * (2 / len(m)) ** 0.5


def test_own_models_go_on_where_they_were() -> None:
    answer, states = steps(OwnModel, torch.ones(D).double(), [{}, {}], beta=0.0)
    torch.testing.assert_close(answer["model"][1], torch.full((D,), 1.3).double())
    again, after = steps(OwnModel, None, states, beta=0.0)
    torch.testing.assert_close(again["model"][1], torch.full((D,), 1.57).double())
    assert torch.equal(after[1][MODEL], again["model"][1])


def test_gradients_from_values_along_all_axes_are_exact() -> None:
    x = torch.ones(D).double()
    exact, _ = steps(MomentumSteps, x, [{}, {}])
    for estimator in ("coordinate", "central"):
        config = {"gradient": "zeroth_order", "estimator": estimator, "num_directions": D}
        config["mu"] = 1e-4
        guessed, _ = steps(MomentumSteps, x, [{}, {}], **config)
        torch.testing.assert_close(guessed["update"], exact["update"], rtol=1e-6, atol=1e-6)


def test_weight_decay_pulls_to_the_origin() -> None:
    x = torch.ones(D).double()
    plain, _ = steps(MomentumSteps, x, [{}, {}], beta=0.0)
    decayed, _ = steps(MomentumSteps, x, [{}, {}], beta=0.0, weight_decay=0.5)
    torch.testing.assert_close(decayed["update"], plain["update"] - 0.1 * 0.5 * x)


@pytest.mark.parametrize("batch", [1, 5, 12, 30])
def test_balanced_minibatches_have_all_classes_alike(batch: int) -> None:
    labels = torch.tensor([7] * 90 + [2] * 9 + [4])
    drawn = balanced(labels, (50, batch), generator=np.random.default_rng(0))
    for row in labels[drawn]:
        counts = [int((row == c).sum()) for c in (2, 4, 7)]
        assert sum(counts) == batch
        assert max(counts) - min(counts) <= 1
    assert len(drawn[labels[drawn] == 7].unique()) > min(40, 10 * batch)


def test_balanced_minibatches_need_classes() -> None:
    config = MinibatchConfig(batch_size=2, sampling="balanced")
    module = torch.nn.Linear(2, 1)
    numbers = ModuleObjective(
        module, torch.nn.functional.mse_loss, torch.zeros(4, 2), torch.zeros(4, 1)
    )
    with pytest.raises(ConfigError, match="sampling=balanced needs objectives with classes"):
        minibatches(clients_of(LoopedFiniteSums([numbers]), ids=[0]), config, 1)
    with pytest.raises(ConfigError, match="batch_size=0 must be at least 1 with sampling"):
        MinibatchConfig(sampling="balanced")


@pytest.mark.parametrize(
    ("strategy", "model"),
    [
        ("fedavg", "cnn"),
        ("fedzo", "mlp"),
        ("dshb", "mlp"),
        pytest.param("fedavg", "mlp", marks=pytest.mark.slow),
        pytest.param("fedzo", "cnn", marks=pytest.mark.slow),
        pytest.param("dshb", "cnn", marks=pytest.mark.slow),
    ],
)
def test_balanced_sampling_runs_everywhere(strategy: str, model: str) -> None:
    settings = {
        "scenario.dataset": "digits",
        "scenario.model": model,
        "client.sampling": "balanced",
        "client.batch_size": 20,
    }
    made = make_experiment(
        "classification", strategy, num_rounds=1, num_clients=4, settings=settings
    )
    result = simulate(made)
    assert result.final_value is not None
    assert result.initial_value is not None
    assert result.final_value < result.initial_value

"""Every optimizer of the server is the one that was named."""

import pytest
import torch

from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate


@pytest.mark.parametrize("strategy", ["fedsaga", "fedavg"])
def test_every_server_optimizer_is_taken_at_its_word(strategy: str) -> None:
    ends = []
    for name in ("adam", "lion", "diffgrad", "adagrad", "adagrad_norm", "sgd"):
        settings = {"strategy.server_optimizer": name, "strategy.server_lr": 0.01}
        made = make_experiment("quadratic", strategy, num_rounds=4, seed=1, settings=settings)
        ends.append(simulate(made).x)
    for i, one in enumerate(ends):
        assert not any(torch.equal(one, other) for other in ends[:i])

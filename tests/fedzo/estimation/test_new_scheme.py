"""A scheme that somebody adds to the table works in every rule that asks values."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attackers.estimated import EstimatedDescent
from fedzo.config import Scalar
from fedzo.errors import ConfigError
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.keys import Key
from fedzo.estimation.schemes import SCHEMES, Offset, Scheme
from fedzo.estimation.zo_gradient import ZoGradientConfig, value_and_estimate
from fedzo.objectives.modules import ModuleObjective
from scenarios import federate
from scenarios.runs.experiment import make_experiment


class FivePoint(Scheme):
    """The five-point stencil [-f(+2) + 8 f(+1) - 8 f(-1) + f(-2)] / 12 mu: exact for quartics."""

    def offsets(self, num_directions: int) -> Sequence[Offset]:
        return [(i, side) for side in (2, 1, -1, -2) for i in range(num_directions)]

    def slopes(
        self,
        values: Float[Tensor, "n q"],
        mu: float,
        memory: Float[Tensor, "n m"] | None,
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "n m"]:
        far, near, back, behind = values.chunk(4, dim=1)
        return (8 * (near - back) - (far - behind)).to(dtype or values.dtype) / (12 * mu)


@pytest.fixture(autouse=True)
def five_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEMES, "five_point", FivePoint())


SMALL = {"client.num_directions": 3, "client.mu": 0.05}
ZEROTH = {**SMALL, "client.gradient": "zeroth_order"}
RULES: dict[str, tuple[str, dict[str, Scalar]]] = {
    "steps": ("fedzo", SMALL),
    "control": ("scaffold1", SMALL),
    "momentum": ("dshb", ZEROTH),
    "anchors": ("fedamd", {**ZEROTH, "client.anchor_directions": 6}),
    "differences": ("fedpage", {**ZEROTH, "client.anchor_directions": 6}),
    "gradients": ("fedsaga", ZEROTH),
    "probes": ("seedzo", SMALL),
    "records": ("diff2_zo", {**SMALL, "strategy.clip_norm": 1e4, "strategy.epsilon": math.inf}),
}


def objective(client: int) -> ModuleObjective:
    """Return a linear least squares problem: a quadratic, whose records have losses."""
    inputs = torch.from_numpy(np.random.default_rng(client).standard_normal((8, 6)))
    module = torch.nn.Linear(6, 1, bias=False, dtype=torch.float64)
    torch.nn.init.ones_(module.weight)
    return ModuleObjective(module, torch.nn.functional.mse_loss, inputs, inputs[:, :1] + 1)


@pytest.mark.more
@pytest.mark.parametrize("rule", RULES)
def test_in_every_rule(rule: str) -> None:
    """Slopes are those of central differences, which are exact for quadratics too, at twice q."""
    strategy, settings = RULES[rule]
    central, stencil = (
        federate(
            objective,
            strategy=strategy,
            num_rounds=2,
            num_clients=2,
            settings={**settings, "client.estimator": name},
        )
        for name in ("central", "five_point")
    )
    torch.testing.assert_close(stencil.x, central.x, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(central.x, torch.ones(6, dtype=torch.float64))
    beside = 3 * 2 + (8 if rule == "records" else 0)  # judging x, and comparing records with it
    assert stencil.queries - beside == 2 * (central.queries - beside) > 0


def test_in_attackers() -> None:
    assert EstimatedDescent(estimator="five_point").estimator == "five_point"


def test_inside_autograd_and_in_place() -> None:
    h = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    config = ZoGradientConfig(estimator="five_point", directions="orthogonal", num_directions=3)
    _, gradient = value_and_estimate(
        lambda x: (x**4).sum(dim=-1), h, config, generator=np.random.default_rng(0)
    )
    torch.testing.assert_close(gradient, 4 * h**3)
    assert config.num_queries(3) == 13

    keys, x = [Key(seed=0, direction=i) for i in range(2)], h[0].clone()
    place = InPlace([x], lambda: (x**4).sum())
    coefficients = place.estimate(keys, SCHEMES["five_point"], 0.1).coefficients
    u = torch.stack([key.draw(0, 3, dtype=torch.float64) for key in keys])
    torch.testing.assert_close(coefficients, u @ (4 * h[0] ** 3) / 2)


def test_an_unknown_scheme_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"must be forward, central, residual, coordinate, five"):
        make_experiment("quadratic", "fedzo", settings={"client.estimator": "six_point"})
    with pytest.raises(ConfigError, match=r"must be forward, central, five_point"):
        make_experiment("quadratic", "seedzo", settings={"client.estimator": "residual"})

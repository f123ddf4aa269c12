"""The rule of FedZO: by hand, its limit, and equal queries against a baseline."""

import pytest
import torch
from worlds import ask_once

from clients.averaging.zeroth_order import ZerothOrderConfig
from fedzo.errors import ConfigError
from fedzo.estimation.directions import DIRECTION_KINDS, direction_scale, sample_directions
from fedzo.objectives.objective import Objective, TorchObjective
from fedzo.protocol.exchange import Moment, Replies
from fedzo.protocol.questions import ZerothOrderSteps
from fedzo.randomness import stream

D = 5
X = torch.linspace(-1, 1, D, dtype=torch.float64)
H = torch.linspace(1, 3, D, dtype=torch.float64)


def bowl(client: int) -> Objective:
    return TorchObjective(function=lambda x: 0.5 * (H * (x - client) ** 2).sum(-1), dim=D)


def run(
    *, steps: int = 1, lr: float = 0.1, seed: int = 0, make=bowl, ids=(0, 1), budget=None,
    **client: object,
) -> Replies:  # type: ignore[no-untyped-def]  # fmt: skip
    settings = ZerothOrderConfig(**client)  # type: ignore[arg-type]
    question = ZerothOrderSteps(x=X, settings=settings, local_steps=steps, local_lr=lr)
    return ask_once(question, make, ids, seed=seed, moment=Moment(0, 1), budget=budget)


def test_one_step_by_hand() -> None:
    """g = (d/m) sum_i [f(x + mu u_i) - f(x)] / mu u_i from the documented key, x - lr g."""
    replies = run(num_directions=3, mu=0.1, optimizer="sgd", ids=[1])
    key = stream(0, "directions", 0, 1, 0, 1)
    u = sample_directions("orthogonal", 3, D, generator=key)
    f = bowl(1).value
    g = sum((f(X + 0.1 * v) - f(X)) / 0.1 * v for v in u) * direction_scale("orthogonal", D) / 3
    torch.testing.assert_close(replies.tensors["update"][0], -0.1 * g, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", DIRECTION_KINDS)
def test_several_steps_by_hand_use_the_key_step_after_step(kind: str) -> None:
    update = run(num_directions=3, mu=0.1, optimizer="sgd", ids=[1], steps=4, directions=kind)
    key, f, x = stream(0, "directions", 0, 1, 0, 1), bowl(1).value, X
    for _ in range(4):
        u = sample_directions(kind, 3, D, generator=key)
        slopes = (f(x + 0.1 * u) - f(x)) / 0.1
        x = x - 0.1 * direction_scale(kind, D) / 3 * slopes @ u
    torch.testing.assert_close(update.tensors["update"][0], x - X, rtol=1e-10, atol=1e-11)


def test_a_full_central_basis_is_gradient_descent() -> None:
    replies = run(estimator="coordinate", optimizer="sgd", steps=4, mu=1.0)
    for row, client in enumerate((0, 1)):
        x = X
        for _ in range(4):
            x = x - 0.1 * H * (x - client)
        torch.testing.assert_close(replies.tensors["update"][row], x - X, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "queries"),
    [("forward", 12), ("central", 18), ("residual", 9), ("coordinate", 30)],
)
def test_queries_are_counted_as_documented(estimator: str, queries: int) -> None:
    replies = run(estimator=estimator, num_directions=3, steps=3)
    assert replies.counts["queries"] == {0: queries, 1: queries}


def test_same_seed_same_bits_other_seed_others() -> None:
    first, again, other = (run(seed=s, steps=2).tensors["update"] for s in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_client_does_not_depend_on_its_company() -> None:
    together = run(ids=range(4), steps=3).tensors["update"][2]
    alone = run(ids=[2], steps=3).tensors["update"][0]
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)


def test_iterates_stay_in_the_box() -> None:
    def boxed(client: int) -> Objective:
        return TorchObjective(function=lambda x: -x.sum(-1), dim=D, lower=-1.0, upper=1.0)

    update = run(make=boxed, steps=20, lr=1.0, project=True).tensors["update"]
    assert ((X + update) <= 1.0).all()
    assert ((X + update) == 1.0).any()
    free = run(make=boxed, steps=20, lr=1.0).tensors["update"]
    assert ((X + free) > 1.0).any()


def test_steps_end_where_the_budget_does() -> None:
    replies = run(num_directions=3, steps=5, ids=[0], budget=11)
    assert replies.counts["queries"] == {0: 8}
    expected = run(num_directions=3, steps=2, ids=[0]).tensors["update"]
    assert torch.equal(replies.tensors["update"], expected)


def test_skipped_values_do_not_reach_the_update() -> None:
    def holed(client: int) -> Objective:
        def value(x: torch.Tensor) -> torch.Tensor:
            total = 0.5 * (H * x**2).sum(-1)
            return torch.where(x[..., 0] > X[0] + 1e-3, torch.nan, total)

        return TorchObjective(function=value, dim=D)

    failed = run(make=holed, directions="coordinate", num_directions=D, mu=0.1)
    assert set(failed.failures) == {0, 1}
    kept = run(
        make=holed, directions="coordinate", num_directions=D, mu=0.1, non_finite="skip",
        optimizer="sgd",
    )  # fmt: skip
    assert kept.counts["non_finite"] == {0: 1, 1: 1}
    assert kept.tensors["update"].isfinite().all()
    assert (kept.tensors["update"][:, 0] == 0).all()


def test_batches_need_examples() -> None:
    with pytest.raises(ConfigError, match=r"set client\.batch_size=0"):
        run(batch_size=4)


@pytest.mark.parametrize(
    "bad", [{"num_directions": 0}, {"mu": 0.0}, {"mu": float("inf")}, {"batch_size": -1}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(bad))}="):
        ZerothOrderConfig(**bad)  # type: ignore[arg-type]


def test_orthogonal_directions_beat_gaussian_ones_at_equal_queries() -> None:
    """Distance to the minimum after 30 steps of 4 directions, mean over 20 seeds."""

    def error(kind: str) -> float:
        ends = [
            X + run(directions=kind, num_directions=4, steps=30, lr=0.1, optimizer="sgd", seed=s,
                    ids=[0]).tensors["update"][0]
            for s in range(20)
        ]  # fmt: skip
        return float(torch.stack(ends).norm(dim=1).mean())

    assert error("orthogonal") < error("gaussian")

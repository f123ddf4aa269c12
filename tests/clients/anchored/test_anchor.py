"""The rules of anchors and miners by hand, and what shared directions are worth."""

from dataclasses import fields
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from worlds import clients_of

from clients.anchored.anchor import AnchorConfig, answer_anchor, answer_difference, train_miner
from fedzo.estimation.bases import Blocks
from fedzo.objectives.cohort import cohort_of
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.oracle import Oracle
from fedzo.protocol.exchange import Moment
from fedzo.protocol.questions import Anchor, Difference, Miner
from fedzo.protocol.questions.anchored import AnchoredQuestion
from fedzo.randomness import stream
from fedzo.runtime.local import Clients
from scenarios.problems.scenario import Scenario
from scenarios.runs.engines import build_scenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

D = 40
RULES: dict[type, Any] = {
    Anchor: answer_anchor,
    Difference: answer_difference,
    Miner: train_miner,
}
SETTINGS = {entry.name for entry in fields(AnchorConfig)}


def bowl(center: float) -> TorchObjective:
    scale = torch.linspace(1, 3, D, dtype=torch.float64)
    return TorchObjective(
        function=lambda x: (
            0.5 * (scale * (x - center).square()).sum(-1) + 0.1 * torch.sin(3 * x).sum(-1)
        ),
        dim=D,
    )


def asked(cls: type[AnchoredQuestion[Any]], clients: Clients, **told: Any) -> dict[str, Tensor]:
    """Return the answer to a question of which only what matters is told."""
    settings = {name: told.pop(name) for name in SETTINGS & set(told)}
    parts = {"settings": AnchorConfig(**settings), "local_steps": 1, "local_lr": 0.1, **told}
    answer, _ = RULES[cls](cls(**parts), clients)
    return answer.tensors()


def ask(
    cls: type[AnchoredQuestion[Any]], *, budget: int | None = None, seed: int = 0, **told: Any
) -> tuple[dict[str, Tensor], Oracle]:
    clients = clients_of(cohort_of([bowl(0.0), bowl(2.0)]), seed=seed, query_budget=budget)
    rows = torch.tensor([0, 1000 * D])
    return asked(cls, clients, first_row=rows, **{"mu": 1e-5, **told}), clients.oracle


def point(seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.from_numpy(stream(seed, "points").standard_normal(D)) * scale


def exact(x: Tensor) -> Tensor:
    return torch.stack([torch.func.grad(bowl(c).function)(x) for c in (0.0, 2.0)])


def test_an_anchor_answers_its_gradient() -> None:
    answer, oracle = ask(Anchor, x=point())
    torch.testing.assert_close(answer["gradient"], exact(point()))
    assert oracle.counts()["gradients"] == [1, 1]


def test_a_difference_is_that_of_two_gradients() -> None:
    x, old = point(0), point(1)
    answer, _ = ask(Difference, x=x, previous=old)
    torch.testing.assert_close(answer["gradient"], exact(x) - exact(old))


def test_a_miner_by_hand() -> None:
    x, v, lr = point(0), point(1), 0.1
    answer, oracle = ask(Miner, x=x, direction=v, local_steps=3)
    first = x - lr * v
    second = first - lr * (v + exact(first) - exact(x))
    rows = []
    for i in range(2):
        g = v + exact(first)[i] - exact(x)[i]
        g = g + exact(second[i])[i] - exact(first)[i]
        rows.append(second[i] - lr * g - x)
    torch.testing.assert_close(answer["update"], torch.stack(rows))
    assert oracle.counts()["gradients"] == [4, 4], "the first step needs none"


@pytest.mark.parametrize("count", [7, 20, D, 3 * D])
def test_slopes_stand_for_the_projection_of_the_gradient(count: int) -> None:
    x = point()
    answer, _ = ask(
        Anchor,
        x=x,
        gradient="zeroth_order",
        anchor_directions=count,
        estimator="central",
    )
    blocks = Blocks(D, count, seed=0)
    rows = torch.tensor([0, 1000 * D])
    directions = blocks.directions(rows, 0)
    expected = torch.einsum("nmd,nd->nm", directions, exact(x))
    torch.testing.assert_close(answer["slopes"], expected, rtol=1e-5, atol=1e-5)
    if count >= D:
        rebuilt = blocks.combine(answer["slopes"], rows, 0)
        torch.testing.assert_close(rebuilt, exact(x), rtol=1e-5, atol=1e-5)


def test_a_replayed_miner_is_the_miner() -> None:
    x, v, steps, m, lr = point(0), point(1), 4, 6, 0.05
    more = {"gradient": "zeroth_order", "num_directions": m, "local_steps": steps, "local_lr": lr}
    short, _ = ask(Miner, x=x, direction=v, tells="slopes", **more)
    long, _ = ask(Miner, x=x, direction=v, tells="update", **more)
    assert short["slopes"].shape == (2, (steps - 1) * m)
    replayed = Blocks(D, m, seed=0).replay(short["slopes"], torch.tensor([0, 1000 * D]), v, lr)
    torch.testing.assert_close(replayed, long["update"], rtol=1e-9, atol=1e-11)


def test_errors_of_differences_shrink_with_shared_directions_only() -> None:
    """Ten times nearer, ten times smaller; with fresh directions the error stays."""

    def errors(distance: float) -> tuple[float, float]:
        x = point(0)
        old = x + distance * point(1)
        more = {"gradient": "zeroth_order", "anchor_directions": 10}
        shared, _ = ask(Difference, x=x, previous=old, **more)
        here, _ = ask(Anchor, x=x, **more)
        blocks, rows = Blocks(D, 10, seed=0), torch.tensor([0, 1000 * D])
        truth = exact(x) - exact(old)
        fresh, _ = ask(Anchor, x=old, seed=1, **more)
        other = Blocks(D, 10, seed=1).combine(fresh["slopes"], rows, 0)
        near = blocks.combine(shared["slopes"], rows, 0) - truth
        far = blocks.combine(here["slopes"], rows, 0) - other - truth
        return float(near.norm()), float(far.norm())

    (shared, fresh), (shared_10, fresh_10) = errors(0.1), errors(0.01)
    assert shared_10 == pytest.approx(shared / 10, rel=0.2)
    assert fresh_10 > 0.5 * fresh


@pytest.mark.parametrize(("cls", "more"), [(Anchor, {}), (Difference, {"previous": point(1)})])
def test_where_the_budget_is_too_small_nothing_is_asked(cls: Any, more: dict[str, Any]) -> None:
    settings = {"gradient": "zeroth_order", "anchor_directions": 20}
    answer, oracle = ask(cls, x=point(0), budget=20, **settings, **more)
    assert answer["slopes"].shape == (2, 0)
    assert oracle.counts()["queries"] == [0, 0]


@pytest.mark.parametrize(("budget", "blocks"), [(11, 0), (12, 1), (35, 2), (36, 3), (1000, 3)])
def test_a_miner_takes_the_steps_that_its_budget_allows(budget: int, blocks: int) -> None:
    where = {"x": point(0), "direction": point(1), "budget": budget}
    more = {**where, "gradient": "zeroth_order", "num_directions": 5, "local_steps": 4}
    answer, oracle = ask(Miner, tells="slopes", **more)
    assert answer["slopes"].shape == (2, 5 * blocks)
    assert oracle.counts()["queries"] == [12 * blocks] * 2
    long, _ = ask(Miner, tells="update", **more)
    assert bool((long["update"] != 0).any()) == (blocks > 0)


def test_blocks_of_owners_do_not_meet() -> None:
    blocks = Blocks(12, 5, seed=3)
    first = blocks.first_rows(torch.arange(4), 7, lane=0)
    seen = torch.cat([blocks.directions(first, k).flatten(0, 1) for k in range(7)])
    assert len(seen.unique(dim=0)) == len(seen) == 4 * 7 * 5
    one = blocks.directions(first, 3)[2]
    torch.testing.assert_close(one @ one.T, torch.eye(5, dtype=torch.float64))
    other = blocks.first_rows(torch.arange(4), 7, lane=1)
    assert not set(first.tolist()) & set(other.tolist())


@cache
def digits() -> Scenario:
    few = {"scenario.dataset": "digits"}
    return build_scenario(make_experiment("classification", "fedamd", num_clients=5, settings=few))


def anchors(round_index: int = 0, **told: Any) -> tuple[dict[str, Tensor], Oracle]:
    scenario = digits()
    cohort, moment = scenario.cohort([0, 3], 0), Moment(0, round_index)
    clients = clients_of(cohort, ids=[0, 3], moment=moment)
    return asked(Anchor, clients, x=scenario.problem(0).initial_x, **told), clients.oracle


@pytest.mark.slow
def test_the_variance_of_an_example_does_not_depend_on_the_batch() -> None:
    """Means over 30 rounds of estimates from small and large batches agree within 5 errors."""
    found = {
        size: torch.stack(
            [
                anchors(anchor_batch_size=size, micro_batches=8, round_index=r)[0]["variance"][:, 0]
                for r in range(30)
            ]
        ).double()
        for size in (16, 160)
    }
    error = sum(v.var(dim=0) / 30 for v in found.values()) ** 0.5
    assert ((found[16].mean(0) - found[160].mean(0)).abs() < 5 * error).all()


def test_parts_of_a_batch_cost_what_the_batch_costs() -> None:
    whole, plain = anchors(anchor_batch_size=64)
    parts, split = anchors(anchor_batch_size=64, micro_batches=8)
    assert plain.counts()["examples"] == split.counts()["examples"] == [64, 64]
    torch.testing.assert_close(parts["gradient"], whole["gradient"], rtol=1e-3, atol=1e-5)


def test_an_anchor_with_all_its_examples_draws_parts_beside() -> None:
    answer, oracle = anchors(micro_batches=8)
    plain, alone = anchors()
    torch.testing.assert_close(answer["gradient"], plain["gradient"])
    assert answer["variance"].shape == (2, 1)
    beside = oracle.counts()["examples"][0] - alone.counts()["examples"][0]
    assert beside == 8 * 4


@pytest.mark.more
def test_what_a_client_says_does_not_depend_on_its_company() -> None:
    """Clients with fewer examples than the batch use all of them, alone or not."""

    def final(chunk: int, **more: Any) -> Any:
        settings = {
            "scenario.dataset": "digits",
            "scenario.partition": "dirichlet",
            "scenario.alpha": 0.3,
            "client.anchor_batch_size": 96,
            "engine.chunk_size": chunk,
            **more,
        }
        made = make_experiment("classification", "fedamd", num_rounds=2, settings=settings)
        return simulate(made)

    for more in ({}, {"strategy.norm_test": 0.3}):
        together, alone = final(0, **more), final(1, **more)
        torch.testing.assert_close(together.x, alone.x, rtol=1e-4, atol=1e-6)
        assert together.summary()["examples"] == alone.summary()["examples"]


def test_a_direction_that_failed_at_one_point_is_left_out_of_the_difference() -> None:
    """The objective is linear, so no slope differs; it has no value beyond a wall."""

    def wall(x: Tensor) -> Tensor:
        value = 3 * x.sum(-1)
        return value.where(x.amax(-1) < 1.0, torch.nan)

    cohort = cohort_of([TorchObjective(function=wall, dim=D)])
    clients = clients_of(cohort, ids=[0], non_finite="skip")
    near = torch.full((D,), 0.9, dtype=torch.float64)
    answer = asked(
        Difference,
        clients,
        x=near,
        previous=torch.zeros_like(near),
        first_row=torch.tensor([0]),
        gradient="zeroth_order",
        mu=0.5,
        non_finite="skip",
        anchor_directions=20,
    )
    assert clients.oracle.counts()["non_finite"][0] > 0
    torch.testing.assert_close(answer["slopes"], torch.zeros_like(answer["slopes"]))

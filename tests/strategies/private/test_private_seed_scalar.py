"""Private slopes in place: the noise, the budget, and what is as without privacy."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from dp_accounting import (
    GaussianDpEvent,
    NeighboringRelation,
    SampledWithoutReplacementDpEvent,
)
from dp_accounting.rdp import RdpAccountant
from torch import nn
from worlds import ON_VECTORS, federate_on_nodes

from fedzo.config import Scalar
from fedzo.errors import ConfigError, FedzoWarning, RunError
from fedzo.objectives.objective import (
    CallableObjective,
    ModuleObjective,
    flatten_parameters,
    restore_parameters,
)
from fedzo.parts import has_part
from scenarios import federate
from scenarios.runs.experiment import build_strategy, make_experiment
from scenarios.runs.methods import STRATEGIES
from scenarios.runs.run_result import RunResult
from strategies.core.privacy_config import PrivacyConfig

STEPS, M, CLIENTS, ROUNDS = 2, 2, 4, 3
WALK: dict[str, Scalar] = {
    "client.num_directions": M,
    "client.mu": 0.01,
    "strategy.server_lr": 0.1,
    "strategy.local_steps": STEPS,
}
RECORD: dict[str, Scalar] = {"strategy.unit": "record", "strategy.local_steps": 1}
SEEDED: dict[str, Scalar] = {"strategy.noise_source": "stream"}


def net() -> nn.Module:
    parts = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    restore_parameters(parts, torch.linspace(-1, 1, flatten_parameters(parts).numel()).sin())
    return parts


def world() -> Callable[[int], ModuleObjective]:
    module = net()

    def make(client: int) -> ModuleObjective:
        inputs = torch.linspace(-2, 2, 48, dtype=torch.float64).reshape(12, 4).cos() + client
        targets = inputs[:, 0].gt(client).long()
        return ModuleObjective(module, nn.functional.cross_entropy, inputs, targets)

    return make


def run(
    strategy: str,
    make: Callable[[int], ModuleObjective] | None = None,
    **more: Any,
) -> RunResult:
    settings = {**WALK, **more.pop("settings", {})}
    told = {"num_rounds": ROUNDS, "num_clients": CLIENTS, "strategy": strategy, **more}
    return federate(make or world(), settings=settings, **told)


def on_nodes(
    make: Callable[[int], ModuleObjective], strategy: str, settings: dict[str, Scalar]
) -> RunResult:
    told = {**WALK, **settings}
    return federate_on_nodes(make, strategy, num_clients=CLIENTS, num_rounds=ROUNDS, settings=told)


def with_record(row: float) -> Callable[[int], ModuleObjective]:
    """Return the world in which the first record of client 0 is another."""
    usual = world()

    def make(client: int) -> ModuleObjective:
        made = usual(client)
        if client:
            return made
        inputs, targets = made.inputs.clone(), made.targets.clone()
        inputs[0], targets[0] = row, 0
        return replace(made, inputs=inputs, targets=targets)

    return make


def test_without_noise_and_with_a_wide_clip_it_is_seed_scalar() -> None:
    silent = {"strategy.epsilon": float("inf"), "strategy.clip_norm": 1e9}
    private = run("dp_seed_scalar", settings=silent)
    assert torch.equal(private.solutions[0], run("seed_scalar").solutions[0])


def test_steps_are_no_longer_than_the_clip() -> None:
    tight = {"strategy.epsilon": float("inf"), "strategy.clip_norm": 1e-3}
    log = run("dp_seed_scalar", settings=tight).solutions[0].view(ROUNDS, STEPS * M)
    assert ((log.norm(dim=1) / (0.1 / M)) <= 1e-3 * (1 + 1e-6)).all()
    assert log.abs().max() > 0


@pytest.mark.more
def test_the_noise_is_that_of_a_replaced_client() -> None:
    """Between two runs of other noise, each number of the log differs by sqrt(2) z 2 C / n."""
    z, clip = 3.0, 1e-3
    settings = {**SEEDED, "strategy.noise_multiplier": z, "strategy.clip_norm": clip,
                "strategy.epsilon": 1e6, "strategy.evaluate_every": 0}  # fmt: skip
    logs = [
        run("dp_seed_scalar", seed=seed, num_rounds=15, settings=settings).solutions[0]
        for seed in range(2)
    ]
    found = torch.cat(logs) / (0.1 / M)
    expected = z * 2 * clip / CLIENTS
    assert float(found.std()) == pytest.approx(expected, rel=5 / (2 * len(found)) ** 0.5)


def test_the_budget_is_that_of_private_fedzo() -> None:
    ours = run("dp_seed_scalar", settings=SEEDED)
    points = {k: v for k, v in WALK.items() if k not in ("strategy.server_lr", "client.mu")}

    def quadratic(client: int) -> CallableObjective:
        return CallableObjective(function=lambda x: float(((x - client) ** 2).mean()), dim=5)

    theirs = federate(
        quadratic,
        num_clients=CLIENTS,
        num_rounds=ROUNDS,
        strategy="dp_fedzo",
        settings={**SEEDED, **points},
    )
    assert ours.last_records[0].epsilon == theirs.last_records[0].epsilon
    assert ours.last_records[0].epsilon == pytest.approx(3.0, rel=1e-3)


def test_what_is_refused() -> None:
    for wrong, sentence in (
        ({"strategy.unit": "record"}, "local_steps=2 must be 1 with unit=record"),
        (
            {**RECORD, "client.batch_size": 3, "strategy.adjacency": "zero_out"},
            "strategy.adjacency=zero_out must be epochs and replace_one with batches",
        ),
        ({**RECORD, "client.batch_size": 2, "client.sampling": "balanced"}, "sampling=balanced"),
        ({**RECORD, "client.batch_size": 99}, "client.batch_size=99 exceeds the .* records"),
        ({"strategy.noise": "clients"}, "noise=clients must be server"),
        ({"strategy.clip_norm": 0.0}, "clip_norm=0"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            run("dp_seed_scalar", settings=wrong)


def test_records_without_noise_and_with_a_wide_clip_are_seed_scalar() -> None:
    silent = {**RECORD, "strategy.epsilon": float("inf"), "strategy.clip_norm": 1e9}
    plain = run("seed_scalar", settings={"strategy.local_steps": 1})
    private = run("dp_seed_scalar", settings=silent)
    torch.testing.assert_close(private.solutions[0], plain.solutions[0], rtol=1e-5, atol=1e-9)
    asked = 2 * M * ROUNDS + 4 + ROUNDS + 1  # slopes, the comparison, F
    assert private.queries == CLIENTS * asked
    assert on_nodes(world(), "dp_seed_scalar", silent).queries == private.queries


@pytest.mark.parametrize(("clip", "share"), [(1e-9, 1.0), (1e9, 0.0)])
def test_the_share_of_shortened_records_is_told_where_that_is_asked(
    clip: float, share: float
) -> None:
    settings = {**RECORD, "strategy.epsilon": 1e6, "strategy.clip_norm": clip, **SEEDED}
    told = run("dp_seed_scalar", settings={**settings, "strategy.report_shortened": True})
    assert told.last_records[0].shortened == share
    untold = run("dp_seed_scalar", settings=settings)
    assert untold.last_records[0].shortened is None
    assert torch.equal(told.solutions[0], untold.solutions[0])


@pytest.mark.parametrize("row", [1e3, -1e-3, float("nan"), float("inf")])
def test_one_record_moves_a_step_by_no_more_than_its_share(row: float) -> None:
    """Whatever it is: by 2 C / (n r), in a round of which all else is the same."""
    clip, records = 0.02, 12
    settings = {**RECORD, "strategy.epsilon": float("inf"), "strategy.clip_norm": clip,
                "strategy.evaluate_every": 0}  # fmt: skip
    steps = [
        run("dp_seed_scalar", make, num_rounds=1, settings=settings).solutions[0] / (0.1 / M)
        for make in (world(), with_record(row))
    ]
    apart = float((steps[0] - steps[1]).norm())
    assert 0 < apart <= 2 * clip / (CLIENTS * records) * (1 + 1e-5)


@pytest.mark.more
def test_the_noise_is_that_of_a_replaced_record() -> None:
    """Where losses are constant, steps are noise alone: z 2 C / (n r) in each number."""
    z, clip = 3.0, 1e-3
    settings = {**SEEDED, **RECORD, "strategy.noise_multiplier": z, "strategy.clip_norm": clip,
                "strategy.epsilon": 1e6, "strategy.evaluate_every": 0}  # fmt: skip

    def flat(client: int) -> ModuleObjective:
        return replace(world()(client), loss=lambda outputs, _: 1 + 0 * outputs.sum())

    found = run("dp_seed_scalar", flat, num_rounds=60, settings=settings)
    expected = z * 2 * clip / (CLIENTS * 12)
    assert found.last_records[0].noise_std == pytest.approx(expected)
    noise = found.solutions[0] / (0.1 / M)
    assert len(noise) == 60 * M
    assert float(noise.std()) == pytest.approx(expected, rel=5 / (2 * len(noise)) ** 0.5)


def test_a_batch_of_all_records_is_no_batch() -> None:
    silent = {**RECORD, "strategy.epsilon": float("inf"), "strategy.clip_norm": 0.02}
    plain = run("dp_seed_scalar", settings=silent)
    whole = run("dp_seed_scalar", settings={**silent, "client.batch_size": 12})
    torch.testing.assert_close(whole.solutions[0], plain.solutions[0], rtol=1e-5, atol=1e-9)
    assert whole.last_records[0].examples == plain.last_records[0].examples


def test_batches_cost_less_noise_for_their_size_and_as_many_examples() -> None:
    z, clip, size = 2.0, 0.02, 3
    settings = {**SEEDED, **RECORD, "client.batch_size": size, "strategy.noise_multiplier": z,
                "strategy.clip_norm": clip, "strategy.evaluate_every": 0,
                "strategy.epsilon": 1e6}  # fmt: skip
    found = run("dp_seed_scalar", settings=settings)
    last = found.last_records[0]
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
    accountant.compose(SampledWithoutReplacementDpEvent(12, size, GaussianDpEvent(z)), ROUNDS)
    assert last.epsilon == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    assert last.noise_std == pytest.approx(z * 2 * clip / (CLIENTS * size))
    compared = 4 * 12
    assert last.examples == CLIENTS * (ROUNDS * 2 * M * size + compared)
    again = on_nodes(world(), "dp_seed_scalar", settings)
    assert torch.equal(again.solutions[0], found.solutions[0])


def test_samples_never_cost_more_than_all_at_the_same_noise() -> None:
    large = run("dp_seed_scalar", settings={**SEEDED, **RECORD, "client.batch_size": 11})
    whole = run("dp_seed_scalar", settings={**SEEDED, **RECORD})
    told, all_records = large.last_records[0], whole.last_records[0]
    assert told.noise_std == pytest.approx(float(all_records.noise_std or 0) * 12 / 11)
    assert told.epsilon == all_records.epsilon


def test_batches_of_a_budget_spend_it() -> None:
    settings = {**SEEDED, **RECORD, "client.batch_size": 3}
    found = run("dp_seed_scalar", settings=settings).last_records[0]
    all_records = run("dp_seed_scalar", settings={**SEEDED, **RECORD}).last_records[0]
    assert found.epsilon == pytest.approx(3.0, rel=1e-3)
    assert found.noise_std is not None
    assert all_records.noise_std is not None
    assert all_records.noise_std < found.noise_std < 4 * all_records.noise_std


@pytest.mark.parametrize("row", [1e3, float("nan")])
def test_one_record_moves_a_batch_by_no_more_than_its_share(row: float) -> None:
    clip, size = 0.02, 6
    settings = {**RECORD, "strategy.epsilon": float("inf"), "client.batch_size": size,
                "strategy.clip_norm": clip, "strategy.evaluate_every": 0}  # fmt: skip
    apart = []
    for seed in range(6):
        one, other = (
            run("dp_seed_scalar", make, num_rounds=1, settings=settings, seed=seed).solutions[0]
            for make in (world(), with_record(row))
        )
        apart.append(float((one - other).norm()) / (0.1 / M))
    assert max(apart) <= 2 * clip / (CLIENTS * size) * (1 + 1e-5)
    assert 0 < sum(each > 0 for each in apart) < len(apart)  # it is not in every sample


def test_without_judging_nobody_is_asked_for_f() -> None:
    found = run("dp_seed_scalar", settings={"strategy.evaluate_every": 0})
    assert [record.judges for record in found.records] == [0] * (ROUNDS + 1)
    assert found.final_value is None
    assert found.queries == CLIENTS * ROUNDS * STEPS * 2 * M


def test_every_private_strategy_tells_its_privacy() -> None:
    private = [name for name, entry in STRATEGIES.items() if has_part(entry.config, PrivacyConfig)]
    assert len(private) > 5
    for name in private:
        made = make_experiment("quadratic", name) if name in ON_VECTORS else None
        made = made or make_experiment("finetune", name)
        assert build_strategy(made).privacy is not None, name


class Recurrent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.GRU(2, 3, batch_first=True) if kind == "gru" else nn.Linear(4, 3)
        self.out = nn.Linear(3, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if isinstance(self.inner, nn.GRU):
            return self.out(self.inner(inputs.reshape(-1, 2, 2))[0][:, -1])
        hidden = self.inner(inputs)
        return self.out(hidden if float(hidden.sum()) > -1e9 else -hidden)


@pytest.mark.parametrize("kind", ["gru", "branch"])
@pytest.mark.parametrize("strategy", ["dp_seed_scalar", "dp_gd", "dp_zo"])
def test_records_that_cannot_be_mapped_are_refused(kind: str, strategy: str) -> None:
    with torch.random.fork_rng():
        module = Recurrent(kind).double()

    def make(client: int) -> ModuleObjective:
        made = world()(client)
        return replace(made, module=module)

    settings = {**SEEDED, **RECORD} if strategy == "dp_seed_scalar" else {**SEEDED}
    walk = WALK if strategy == "dp_seed_scalar" else {}
    told = {"strategy": strategy, "settings": {**walk, **settings}}
    with pytest.raises(ConfigError, match=r"records cannot be computed together by torch\.func"):
        federate(make, num_clients=2, num_rounds=2, **told)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"records cannot be computed together by torch\.func"):
        federate_on_nodes(make, num_clients=2, num_rounds=2, **told)  # type: ignore[arg-type]


def test_a_private_run_that_nobody_answers_fails() -> None:
    def broken(client: int) -> ModuleObjective:
        def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("gone")

        return replace(world()(client), loss=loss)

    settings = {**SEEDED, **RECORD, "strategy.evaluate_every": 0}
    with pytest.raises(RunError, match="nobody has answered in any of 2 rounds"):
        run("dp_seed_scalar", broken, num_rounds=2, settings=settings)


def test_a_client_of_few_records_is_left_out_and_told() -> None:
    usual = world()

    def make(client: int) -> ModuleObjective:
        made = usual(client)
        return made.minibatch(torch.arange(2)) if client == 3 else made

    with pytest.warns(FedzoWarning, match="client 3: left out: it says 2 records"):
        found = run("dp_seed_scalar", make, settings={**SEEDED, **RECORD})
    assert "left out" in found.records[-1].failures[3]
    assert found.last_records[0].epsilon == pytest.approx(3.0, rel=1e-3)


class Compared(nn.Module):
    """A module whose outputs for a record depend on those of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.inner(inputs)
        return outputs - outputs.mean(dim=0)


def test_losses_that_are_no_means_over_records_are_refused() -> None:
    def summed(client: int) -> ModuleObjective:
        return replace(world()(client), loss=nn.CrossEntropyLoss(reduction="sum"))

    def ignoring(client: int) -> ModuleObjective:
        return replace(world()(client), loss=nn.CrossEntropyLoss(ignore_index=0))

    def comparing(client: int) -> ModuleObjective:
        return replace(world()(client), module=Compared())

    for make in (summed, ignoring, comparing):
        with pytest.raises(ConfigError, match="do not average to the objective"):
            run("dp_seed_scalar", make, settings={**SEEDED, **RECORD})


def test_a_client_that_raises_fails_alone_and_losses_may_cancel() -> None:
    def broken(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("boom")

    def failing(client: int) -> ModuleObjective:
        made = world()(client)
        return replace(made, loss=broken) if client == 2 else made

    found = run("dp_seed_scalar", failing, settings={**SEEDED, **RECORD})
    assert "boom" in found.records[-1].failures[2]

    def signed(client: int) -> ModuleObjective:
        made = world()(client)
        signs = torch.linspace(-1, 1, 12, dtype=torch.float64)
        return replace(made, loss=lambda o, t: (o[:, 0] * t).mean(), targets=signs)

    assert run("dp_seed_scalar", signed, settings={**SEEDED, **RECORD}).records[-1].round_index == 3


@pytest.mark.parametrize("budget", [20, 32, 50])
def test_a_budget_too_small_for_some_to_be_compared_ends_no_run_early(budget: int) -> None:
    few = {**SEEDED, **RECORD, "strategy.participation": 0.5, "strategy.evaluate_every": 0}
    found = run("dp_seed_scalar", num_rounds=20, query_budget=budget, settings=few)
    assert found.stops == ["budget"]
    assert found.queries <= budget


@pytest.mark.parametrize("wrong", range(CLIENTS))
def test_a_client_is_compared_before_it_counts_whenever_that_is(wrong: int) -> None:
    def make(client: int) -> ModuleObjective:
        made = world()(client)
        return replace(made, loss=nn.CrossEntropyLoss(reduction="sum")) if client == wrong else made

    few = {**SEEDED, **RECORD, "strategy.participation": 0.5}
    with pytest.raises(ConfigError, match="do not average to the objective"):
        run("dp_seed_scalar", make, num_rounds=12, settings=few)
    if wrong == 1:
        found = on_nodes(make, "dp_seed_scalar", {**SEEDED, **RECORD})
        told = [record.failures for record in found.records if record.round_index]
        assert all("do not average" in failures[wrong] for failures in told)


@pytest.mark.parametrize("strategy", ["diff2", "diff2_zo"])
def test_who_is_refused_in_the_first_round_takes_part_in_no_other_of_diff2(strategy: str) -> None:
    def make(client: int) -> ModuleObjective:
        made = world()(client)
        return replace(made, loss=nn.CrossEntropyLoss(reduction="sum")) if client == 1 else made

    settings: dict[str, Scalar] = {**SEEDED, "strategy.unit": "record"}
    found = federate_on_nodes(make, strategy, num_clients=CLIENTS, num_rounds=3, settings=settings)
    told = [record.failures for record in found.records if record.round_index]
    assert len(told) == 3
    assert all("do not average" in failures[1] and len(failures) == 1 for failures in told)

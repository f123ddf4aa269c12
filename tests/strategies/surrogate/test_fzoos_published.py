"""FZooS as published: its protocol, its correction and its settings."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch

from clients import make_rules
from fedzo.objectives.objective import TorchObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.questions.surrogate import SurrogateConfig, SurrogateSteps
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import RunResult, simulate
from strategies.core.driver import RunSettings, run_rounds
from strategies.surrogate.fzoos import FZooS
from strategies.surrogate.fzoos_config import FZooSConfig

D, N, M, T = 12, 4, 30, 3


def run(rounds: int = 3, clients: int = N, **settings: object) -> RunResult:
    given = {
        "scenario.dim": D,
        "strategy.variant": "paper",
        "strategy.local_steps": T,
        "client.num_features": M,
        **({} if "strategy__one_exchange" in settings else {"client.anchor_queries": 7}),
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    experiment = make_experiment(
        "quadratic",
        "fzoos",
        num_rounds=rounds,
        num_clients=clients,
        settings=given,  # type: ignore[arg-type]
    )
    return simulate(experiment)


def test_the_two_exchanges_send_d_and_m_each_way() -> None:
    first, second = run(rounds=2).records[1:]
    assert first.floats_up == N * (D + M)
    assert second.floats_up - first.floats_up == N * (D + M)
    assert first.floats_down == N * (D + D)  # x twice, because nobody has it; no weights yet
    assert second.floats_down - first.floats_down == N * (D + M)


def test_queries_are_as_documented() -> None:
    first, second = run(rounds=2).records[1:]
    each = T + (T - 1) * 5 + 1 + 7
    assert first.queries == N * (each + 10)
    assert second.queries - first.queries == N * each


def test_one_exchange_sends_the_same_without_queries_at_x() -> None:
    first, second = run(rounds=2, strategy__one_exchange=True).records[1:]
    assert second.queries - first.queries == N * (T + (T - 1) * 5)
    assert second.floats_up - first.floats_up == N * (D + M)
    assert second.floats_down - first.floats_down == N * (D + M)


def test_gamma_zero_is_the_uncorrected_method() -> None:
    """Without a correction the transferable surrogate changes nothing, whatever its size."""
    zero = {"client__gamma": "constant", "client__gamma_value": 0.0}
    few, many = (run(**zero, client__num_features=m).x for m in (5, 40))
    assert torch.equal(few, many)
    assert not torch.equal(few, run(client__gamma="constant", client__gamma_value=1.0).x)


def test_a_client_alone_has_nothing_to_correct() -> None:
    alone = [run(clients=1, client__gamma="constant", client__gamma_value=g).x for g in (0.0, 1.0)]
    torch.testing.assert_close(alone[0], alone[1], rtol=0, atol=1e-12)


@pytest.mark.more
@pytest.mark.parametrize("gamma", ["inverse", "theory", "data"])
def test_every_schedule_corrects_and_descends(gamma: str) -> None:
    result = run(rounds=4, client__gamma=gamma, strategy__local_steps=6)
    assert result.final_value < 0.8 * result.initial_value  # type: ignore[operator]
    none = run(rounds=4, client__gamma="constant", client__gamma_value=0.0, strategy__local_steps=6)
    assert not torch.equal(result.x, none.x)


@pytest.mark.parametrize(
    "kernel",
    [
        "matern52",
        pytest.param("squared_exponential", marks=pytest.mark.slow),
        pytest.param("rational_quadratic", marks=pytest.mark.slow),
    ],
)
def test_every_kernel_descends_with_a_fitted_lengthscale(kernel: str) -> None:
    result = run(rounds=3, client__kernel=kernel)
    assert result.final_value < 0.9 * result.initial_value  # type: ignore[operator]


def test_the_official_safeguard_never_lets_f_rise_and_is_counted() -> None:
    records = run(rounds=6, strategy__variant="official", scenario__heterogeneity=50.0).records
    values = [record.value for record in records]
    assert all(b <= a for a, b in pairwise(values))  # type: ignore[operator]
    each = T + (T - 1) * 5 + 2 + 1 + 7
    assert records[2].queries - records[1].queries == N * each


def test_clients_that_come_and_go_are_sent_x() -> None:
    records = run(rounds=4, clients=8, strategy__participation=0.5).records
    assert records[-1].value < records[0].value  # type: ignore[operator]
    assert all(not record.failures for record in records)


@pytest.mark.parametrize(
    ("variant", "dtype"), [("paper", torch.float32), ("official", torch.float64)]
)
def test_a_client_that_fails_fails_alone(variant: str, dtype: torch.dtype) -> None:
    """Client 1 answers NaN from its 15th point on; float32 points stay float32 where x is kept."""
    asked = dict.fromkeys(range(3), 0)

    def make(client: int) -> TorchObjective:
        def value(x: torch.Tensor) -> torch.Tensor:
            assert x.dtype == dtype
            asked[client] += len(x)
            spoiled = client == 1 and asked[1] > 15
            return (x - 0.3).square().sum(-1) * (torch.nan if spoiled else 1.0)

        return TorchObjective(function=value, dim=6)

    config = FZooSConfig(variant=variant, local_steps=T)  # type: ignore[arg-type]
    client = SurrogateConfig(num_features=M, anchor_queries=3)
    outcome = run_rounds(
        FZooS(config, client=client),
        InProcessEngine(FunctionEnvironment(make), make_rules()),
        OpenProblem(initial_x=torch.ones(6, dtype=dtype)),
        RunSettings(num_clients=3, num_rounds=3),
    )
    assert outcome.records[-1].round_index == 3
    assert set(outcome.records[-1].failures) == {1}


def test_the_cut_of_the_cohort_changes_nothing() -> None:
    settings = {"strategy__participation": 0.6, "client__gamma": "theory"}
    whole, cut = (run(rounds=4, clients=5, engine__chunk_size=size, **settings) for size in (0, 1))
    assert whole.queries == cut.queries
    torch.testing.assert_close(whole.x, cut.x, rtol=0, atol=1e-8)


def test_a_budget_may_end_before_a_newcomer_has_asked_anything() -> None:
    settings = {
        "scenario.dim": 10,
        "strategy.variant": "paper",
        "strategy.participation": 0.1,
        "client.num_features": M,
    }
    experiment = make_experiment(
        "quadratic",
        "fzoos",
        num_rounds=60,
        num_clients=10,
        query_budget=200,
        settings=settings,  # type: ignore[arg-type]
    )
    assert simulate(experiment).stops == ["budget"]


@pytest.mark.parametrize("budget", [4, 40, 66, 150, 333])
def test_a_budget_is_never_exceeded(budget: int) -> None:
    settings = {
        "scenario.dim": D,
        "strategy.variant": "paper",
        "strategy.local_steps": T,
        "client.num_features": M,
    }
    experiment = make_experiment(
        "quadratic",
        "fzoos",
        num_rounds=50,
        num_clients=N,
        query_budget=budget,
        settings=settings,  # type: ignore[arg-type]
    )
    result = simulate(experiment)
    assert result.queries <= budget
    assert result.stops == ["budget"]


class Losing(InProcessEngine):
    """Loses an answer of the second exchange of round 2, and notes what x is sent to whom."""

    def __init__(self) -> None:
        def make(client: int) -> TorchObjective:
            return TorchObjective(function=lambda x: ((x - client) ** 2).sum(-1), dim=3)

        super().__init__(FunctionEnvironment(make), make_rules())
        self.sent: list[torch.Tensor | None] = []

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> Sequence[Replies]:
        found = list(super().perform(exchanges, timeout_s=timeout_s))
        for place, exchange in enumerate(exchanges):
            if isinstance(exchange.question, SurrogateSteps):
                self.sent.append(exchange.question.x)
            elif exchange.moment.round_index == 2:
                found[place] = found[place].without({1: "lost on the way"})
        return found


def test_after_a_spoilt_round_clients_are_sent_the_x_that_the_server_went_back_to() -> None:
    engine = Losing()
    config = FZooSConfig(variant="paper", local_steps=2, local_lr=0.1, min_answers=2)
    states: list[torch.Tensor] = []
    run_rounds(
        FZooS(config, client=SurrogateConfig(num_features=M)),
        engine,
        OpenProblem(initial_x=torch.full((3,), 2.0, dtype=torch.float64)),
        RunSettings(num_clients=2, num_rounds=3),
        callbacks=[lambda snapshot: states.append(snapshot.state.x)],
    )
    assert torch.equal(states[2], states[1]), "the second round was spoilt"
    begun, second, third = (x for x in engine.sent if x is None or len(x))
    assert begun is not None
    assert second is None, "they have it"
    assert third is not None
    assert torch.equal(third, states[1])


@pytest.mark.parametrize("variant", ["paper", "official", "on_client"])
def test_a_rule_that_learns_goes_on_from_the_last_aggregate(variant: str) -> None:
    """Clips of 0.05 around nothing would take a third of the way in six rounds."""
    settings = {
        "scenario.dim": 20,
        "strategy.variant": variant,
        "strategy.aggregator": "centered_clipping(radius=0.05)",
        "strategy.num_byzantine": 1,
    }
    made = make_experiment("quadratic", "fzoos", num_rounds=6, num_clients=7, settings=settings)
    found = simulate(made)
    assert found.initial_value is not None
    assert found.final_value < 0.6 * found.initial_value  # type: ignore[operator]

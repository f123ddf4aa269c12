"""What malicious clients send, and the engine that sends it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worlds import Toy

from fedzo.adversary.lies import LIES, ByzantineConfig, MimicMemory, learn_mimic, make_lies
from fedzo.aggregation import krum, trimmed_mean
from fedzo.errors import ConfigError
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.question import Question
from fedzo.protocol.questions import Judge, Mix
from fedzo.runtime.middleware.byzantine import LIARS, Byzantine
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate

HONEST = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 2.0]], dtype=torch.float64)


def config(attack: str, **more: Any) -> ByzantineConfig:
    return ByzantineConfig(attack=attack, num_clients=2, **more)  # type: ignore[arg-type]


def lie(attack: str, **more: Any) -> torch.Tensor:
    generator = np.random.default_rng(0)
    return make_lies(config(attack, **more), HONEST, 2, generator=generator)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ("sign_flip", [-3, -2]),
        ("scaled_sign_flip", [-4.5, -3]),
        ("alie", [3 + 1.5 * 2, 2 + 1.5 * 2]),
        ("inner_product", [-6, -4]),
        ("foe", [2.7, 1.8]),
        ("mimic", [1, 0]),
        ("mimic_learned", [1, 0]),
        ("infinity", [torch.inf, torch.inf]),
        ("none", [3, 2]),
    ],
)
def test_lies_by_hand(attack: str, expected: list[float]) -> None:
    found = lie(attack)
    assert found.shape == (2, 2)
    for row in found:
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64))


def test_scale_is_taken() -> None:
    torch.testing.assert_close(lie("alie", scale=0.5)[0], HONEST.mean(0) + 1)


def test_gaussian_lies_differ_and_have_the_honest_spread() -> None:
    one, other = lie("gaussian")
    spread = (HONEST - HONEST.mean(0)).square().sum(1).mean().sqrt()
    assert not torch.equal(one, other)
    torch.testing.assert_close((one - HONEST.mean(0)).norm(), spread)


@pytest.mark.parametrize("attack", ["alie_searched", "foe_searched", "adaptive"])
@pytest.mark.parametrize("rule", [krum, trimmed_mean])
def test_searching_does_more_harm_than_fixed_lies(attack: str, rule: Any) -> None:
    honest = torch.from_numpy(np.random.default_rng(1).normal(size=(9, 6)) + 1)

    def defend(vectors: torch.Tensor) -> torch.Tensor:
        return rule(vectors, num_byzantine=3)

    def harm(name: str, scale: float = 0.0) -> float:
        lies = make_lies(
            config(name, scale=scale), honest, 3, generator=np.random.default_rng(0), defend=defend
        )
        return float((defend(torch.cat([honest, lies])) - honest.mean(0)).norm())

    fixed = {"alie_searched": "alie", "foe_searched": "foe", "adaptive": "alie"}[attack]
    found = harm(attack)
    assert found > 0
    assert found >= max(harm(fixed, scale) for scale in (0.2, 0.5, 1.0, 1.5)) - 0.1 * found


def test_a_learning_mimic_finds_the_axis_of_an_outlier() -> None:
    honest = torch.from_numpy(np.random.default_rng(2).normal(size=(8, 5)))
    honest[5] += torch.tensor([30.0, 0, 0, 0, 0], dtype=torch.float64)
    memory: MimicMemory | None = None
    for _ in range(50):
        memory = learn_mimic(memory, honest, generator=np.random.default_rng(0))
    lies = make_lies(
        config("mimic_learned"), honest, 2, generator=np.random.default_rng(0), memory=memory
    )
    assert torch.equal(lies[1], honest[5])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"attack": "alie"}, "num_clients=0 must be at least 1 to attack"),
        ({"num_clients": -1}, "num_clients=-1"),
        ({"scale": -1.0}, "scale=-1.0"),
        ({"evaluations": 1}, "evaluations=1"),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        ByzantineConfig(**settings)
    assert words in str(error.value)


class Echo:
    """An engine whose clients answer their number."""

    def __init__(self) -> None:
        self.asked: list[Exchange] = []

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        self.asked += exchanges
        return [
            Replies(
                client_ids=list(e.client_ids),
                tensors={
                    "update": torch.tensor([[float(c), 1.0] for c in e.client_ids]),
                    "rank": torch.tensor([[c] for c in e.client_ids]),
                },
                counts={"queries": dict.fromkeys(e.client_ids, 1)},
            )
            for e in exchanges
        ]

    def client_states(self) -> dict[int, Any]:
        return {0: {"x": torch.zeros(1)}}

    def restore_client_states(self, states: Any) -> None:
        self.restored = dict(states)

    def close(self) -> None:
        pass


ASKED = Toy()


def perform(engine: Byzantine, question: Question[Any] = ASKED, clients: Any = range(5)) -> Replies:
    [replies] = engine.perform([Exchange(question=question, client_ids=clients)], timeout_s=1)
    return replies


def test_only_liars_answers_change() -> None:
    replies = perform(Byzantine(Echo(), config("sign_flip"), [3, 4], seed=0))
    assert replies.tensors["update"].tolist() == [[0, 1], [1, 1], [2, 1], [-1, -1], [-1, -1]]
    assert replies.tensors["rank"].flatten().tolist() == [0, 1, 2, 3, 4]
    assert replies.total("queries") == 5


def test_judging_is_left_alone_and_a_cohort_of_liars_alone_cannot_copy_anybody() -> None:
    engine = Byzantine(Echo(), config("sign_flip"), [3, 4], seed=0)
    assert perform(engine, Judge(x=torch.zeros(1, 2))).tensors["update"][4].tolist() == [4, 1]
    assert perform(engine, clients=[3, 4]).tensors["update"].tolist() == [[3, 1], [4, 1]]
    assert perform(engine, clients=[0, 1]).tensors["update"].tolist() == [[0, 1], [1, 1]]


def test_flipped_labels_are_asked_of_liars_only() -> None:
    echo = Echo()
    replies = perform(Byzantine(echo, config("label_flip"), [1, 3], seed=0))
    assert list(replies.client_ids) == [0, 1, 2, 3, 4]
    assert replies.tensors["update"][:, 0].tolist() == [0, 1, 2, 3, 4]
    flags = {tuple(e.client_ids): e.poisoned for e in echo.asked}
    assert flags == {(0, 2, 4): False, (1, 3): True}


def test_the_attackers_memory_is_saved_beside_the_clients() -> None:
    engine = Byzantine(Echo(), config("mimic_learned"), [4], seed=0)
    perform(engine)
    perform(engine)
    states = engine.client_states()
    assert set(states) == {0, LIARS}
    fresh = Byzantine(Echo(), config("mimic_learned"), [4], seed=0)
    fresh.restore_client_states(states)
    assert perform(fresh).tensors["update"].equal(perform(engine).tensors["update"])
    assert set(fresh._inner.restored) == {0}  # type: ignore[attr-defined]


def mixing(engine: Byzantine) -> Mix:
    """Six nodes, each hears itself and the three after it."""
    heard = torch.tensor([[int((j - i) % 6 <= 3) for j in range(6)] for i in range(6)])
    asked = Mix(
        models=torch.arange(12.0).reshape(6, 2),
        heard=heard.to(torch.uint8),
        own=torch.arange(6),
        aggregator="mean",
        num_byzantine=0,
        report=True,
    )
    perform(engine, asked, range(6))
    return engine._inner.asked[-1].question  # type: ignore[attr-defined,no-any-return]


def test_between_peers_liars_are_always_heard_in_place_of_honest_ones() -> None:
    sent = mixing(Byzantine(Echo(), config("sign_flip"), [4, 5], seed=0))
    assert sent.heard.sum(dim=1).tolist() == [4] * 6
    assert sent.heard[:, 4:].all()
    assert sent.heard.diagonal().all()
    assert sent.lies is None


def test_every_second_peer_may_be_told_the_opposite() -> None:
    sent = mixing(Byzantine(Echo(), config("alie", receivers="opposite"), [4, 5], seed=0))
    lies, models = sent.lies, sent.models
    assert lies is not None
    assert sent.liars is not None
    mean = models[:4].mean(dim=0)
    assert torch.equal(lies[0], models[4:])
    torch.testing.assert_close(lies[1] - mean, mean - models[4:])
    assert sent.liars.tolist() == [[4, 5]] * 6


SEARCHED = ("alie_searched", "foe_searched", "adaptive")


@pytest.mark.more
@pytest.mark.parametrize("attack", [a for a in LIES if a not in ("none", "label_flip")])
def test_every_attack_runs_and_repeats(attack: str) -> None:
    settings = {
        "scenario.dim": 8,
        "strategy.aggregator": "nnm | trimmed_mean",
        "strategy.num_byzantine": 2,
        "byzantine.attack": attack,
        "byzantine.num_clients": 2,
        **({"byzantine.evaluations": 8} if attack in SEARCHED else {}),
    }
    experiment = make_experiment(
        "quadratic", "fedzo", num_rounds=2, num_clients=7, settings=settings
    )
    one, other = simulate(experiment), simulate(experiment)
    assert torch.equal(one.x, other.x)
    assert one.final_value is not None
    assert one.initial_value is not None
    assert one.final_value < one.initial_value


def test_a_run_under_a_learning_attack_resumes_at_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scenarios.runs.rundir.CHECKPOINT_EVERY_S", 0.0)
    settings = {
        "scenario.dim": 8,
        "strategy.aggregator": "centered_clipping(radius=1.0)",
        "byzantine.attack": "mimic_learned",
        "byzantine.num_clients": 2,
    }
    experiment = make_experiment(
        "quadratic", "fedzo", num_rounds=3, num_clients=7, settings=settings
    )
    whole = simulate(experiment)

    def die(snapshot: Any) -> None:
        if snapshot.record.round_index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, out=tmp_path, callbacks=[die])
    part = simulate(experiment, out=tmp_path, resume=True)
    assert torch.equal(part.x, whole.x)


def test_labels_that_objectives_do_not_have_cannot_be_flipped() -> None:
    settings = {"byzantine.attack": "label_flip", "byzantine.num_clients": 1}
    with pytest.raises(ConfigError, match="label_flip needs objectives with labels"):
        simulate(make_experiment("quadratic", "fedzo", num_rounds=1, settings=settings))


@pytest.mark.parametrize("model", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_flipped_labels_harm_one_client_alone(model: str) -> None:
    def run(attack: str) -> list[float]:
        settings = {
            "scenario.dataset": "digits",
            "scenario.model": model,
            "byzantine.attack": attack,
            "byzantine.num_clients": 0 if attack == "none" else 3,
        }
        made = make_experiment(
            "classification", "fedavg", num_rounds=3, num_clients=4, settings=settings
        )
        return [record.value or 0 for record in simulate(made).records]

    flipped, plain = run("label_flip"), run("none")
    assert flipped[0] == plain[0]
    assert flipped[-1] > plain[-1] + 0.05


def test_nobody_honest_is_refused() -> None:
    settings = {"byzantine.attack": "alie", "byzantine.num_clients": 5}
    with pytest.raises(ConfigError, match="somebody must be honest"):
        make_experiment("quadratic", "fedzo", num_clients=5, settings=settings)

"""Victims and what stands around them: wrappers, memory, remote ones, losses and ranks by hand."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedzo.attacks.attack import AttackSettings, attack
from fedzo.attacks.attackers.estimated import rank_gradient
from fedzo.attacks.confirm import differ
from fedzo.attacks.goal import Goal
from fedzo.attacks.victims.memory import Remembered
from fedzo.attacks.victims.remote import RemoteVictim, read_json
from fedzo.attacks.victims.server import serving
from fedzo.attacks.victims.victim import (
    UNKNOWN,
    Answers,
    CallableVictim,
    ModuleVictim,
    Victim,
    from_labels,
    from_scores,
    join_answers,
    read_answers,
)
from fedzo.attacks.victims.wrappers import (
    LabelOnly,
    Latency,
    Meter,
    NoisyScores,
    OrderOnly,
    QueryLimit,
    RoundedScores,
    TopScores,
)
from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.transport import Command, Http
from fedzo.objectives.tries import Final
from fedzo.randomness import stream
from scenarios.attacks.attackers import make_attacker

WEIGHTS = stream(0, "weights").standard_normal((4, 16))


def scores(images: NDArray[np.float32]) -> NDArray[np.float64]:
    flat = images.reshape(len(images), -1).astype(np.float64)
    return np.array([(WEIGHTS * (row - 0.5)).sum(axis=1) for row in flat]).reshape(-1, 4)


def pictures(count: int = 6, key: str = "images") -> torch.Tensor:
    return torch.from_numpy(stream(0, key).random((count, 1, 4, 4))).float()


def plain() -> CallableVictim:
    return CallableVictim(scores)


def told(victim: Victim, images: torch.Tensor) -> torch.Tensor:
    answers = victim.ask(images)
    assert answers.scores is not None
    return answers.scores


def test_a_victim_of_labels_tells_no_scores() -> None:
    images = pictures()
    answers = LabelOnly(plain()).ask(images)
    assert LabelOnly(plain()).tells == "labels"
    assert answers.scores is None
    assert torch.equal(answers.labels, told(plain(), images).argmax(1))
    assert answers.queries == 6


def test_an_order_is_that_of_every_class_and_tells_no_label() -> None:
    images = pictures()
    answers = OrderOnly(plain()).ask(images)
    assert answers.scores is not None
    inside = told(plain(), images)
    for c in range(4):
        assert answers.scores[inside[:, c].argsort(descending=True), c].tolist() == [*range(6)]
    assert answers.labels.tolist() == [UNKNOWN] * 6
    for inner in (LabelOnly(plain()), OrderOnly(plain())):
        with pytest.raises(ConfigError, match="scores"):
            OrderOnly(inner)


def test_top_scores_are_the_highest_and_the_others_nan() -> None:
    images = pictures()
    inside, outside = told(plain(), images), told(TopScores(plain(), 2), images)
    assert outside.isnan().sum(1).tolist() == [2] * 6
    assert torch.equal(outside.nan_to_num(0).sum(1), inside.topk(2).values.sum(1))
    with pytest.raises(ConfigError, match="top=9 must be at most 3, or nothing is hidden"):
        told(TopScores(plain(), 9), images)
    with pytest.raises(ConfigError):
        TopScores(plain(), 0)


def test_rounded_and_noisy_scores() -> None:
    images = pictures()
    inside = told(plain(), images)
    torch.testing.assert_close(
        told(RoundedScores(plain(), 1), images), (inside * 10).round() / 10, rtol=0, atol=1e-6
    )
    many = images[:1].expand(4000, -1, -1, -1)
    noise = told(NoisyScores(plain(), 0.5, generator=stream(0, "n")), many) - inside[:1]
    assert float(noise.mean().abs()) < 5 * 0.5 / math.sqrt(16000)
    assert abs(float(noise.std()) - 0.5) < 5 * 0.5 / math.sqrt(32000)
    noisy = NoisyScores(plain(), 3.0, generator=stream(0, "n")).ask(images)
    assert noisy.scores is not None
    assert torch.equal(noisy.labels, noisy.scores.argmax(1))


def test_noise_around_top_scores_keeps_the_label_among_those_told() -> None:
    images = pictures()
    answers = NoisyScores(TopScores(plain(), 2), 1e-6, generator=stream(0, "n")).ask(images)
    assert torch.equal(answers.labels, told(plain(), images).argmax(1))


def test_noise_around_refusals_tells_no_label() -> None:
    answers = NoisyScores(QueryLimit(plain(), 2), 0.1, generator=stream(0, "n")).ask(pictures())
    assert answers.labels[2:].tolist() == [UNKNOWN] * 4


def test_scores_that_are_not_told_are_last_in_the_order() -> None:
    """As in the losses, what the top k does not tell is below what it does."""
    images = pictures()
    top, places = (
        told(TopScores(plain(), 1), images),
        told(OrderOnly(TopScores(plain(), 1)), images),
    )
    for c in range(4):
        known = ~top[:, c].isnan()
        if bool(known.any()) and not bool(known.all()):
            assert float(places[known, c].max()) < float(places[~known, c].min())


@pytest.mark.parametrize("around", [LabelOnly, OrderOnly, lambda v: TopScores(v, 2), Meter])
def test_a_limit_refuses_what_is_beyond_it(around: Any) -> None:
    limit = QueryLimit(plain(), 8)
    victim, images = around(limit), pictures()
    first, second, third = (victim.ask(images) for _ in range(3))
    assert first.answered.tolist() == [True] * 6
    assert second.answered.tolist() == [True] * 2 + [False] * 4
    assert third.answered.tolist() == [False] * 6
    assert [a.queries for a in (first, second, third)] == [6, 2, 0]
    assert limit.remaining == 0
    assert join_answers([first, second, third]).queries == 8


def test_latency_sleeps_per_request_and_per_image() -> None:
    slept: list[float] = []
    victim = Latency(plain(), 0.5, 0.25, sleep=slept.append)
    victim.ask(pictures(2))
    victim.ask(pictures(4))
    assert slept == [1.0, 1.5]
    with pytest.raises(ConfigError):
        Latency(plain(), -1.0)


def test_an_image_asked_twice_is_paid_once() -> None:
    images = pictures()
    meter = Meter(plain())
    victim = Remembered(meter)
    twice = victim.ask(torch.cat([images[:3], images[:2]]))
    again = victim.ask(images[1:4])
    assert [twice.queries, again.queries, meter.queries] == [3, 1, 4]
    assert twice.scores is not None
    assert torch.equal(twice.scores, told(plain(), torch.cat([images[:3], images[:2]])))
    assert again.answered.tolist() == [True] * 3
    with pytest.raises(ConfigError, match="order"):
        Remembered(OrderOnly(plain()))


def test_refused_images_may_be_asked_again() -> None:
    images, limit = pictures(3), QueryLimit(plain(), 1)
    victim = Remembered(limit)
    first = victim.ask(images)
    assert (first.queries, first.answered.tolist()) == (1, [True, False, False])
    limit.remaining = 5
    second = victim.ask(images)
    assert (second.queries, second.answered.tolist()) == (2, [True] * 3)


@pytest.mark.parametrize(
    "around",
    [LabelOnly, lambda v: RoundedScores(v, 2), lambda v: TopScores(v, 2), lambda v: v],
)
def test_wrappers_keep_what_is_paid(around: Any) -> None:
    """A wrapper around a memory counts no more than the memory does."""
    victim = around(Remembered(plain()))
    assert victim.ask(pictures()).queries == 6
    assert victim.ask(pictures()).queries == 0


@pytest.mark.parametrize("around", [LabelOnly, lambda v: TopScores(v, 2), lambda v: v])
def test_a_journal_is_replayed_and_counted(around: Any, tmp_path: Path) -> None:
    journal, images = tmp_path / "sub" / "journal", pictures()
    first = Remembered(around(plain()), journal, name="v").ask(images[:4])
    meter = Meter(around(plain()))
    later = Remembered(meter, journal, name="v")
    second = later.ask(images)
    assert (later.replayed, meter.queries, second.queries) == (4, 2, 6)
    assert torch.equal(second.labels[:4], first.labels)
    if first.scores is not None:
        assert second.scores is not None
        assert torch.equal(second.scores[:4].nan_to_num(9), first.scores.nan_to_num(9))
    third = Remembered(Meter(around(plain())), journal, name="v")
    assert third.ask(images).queries == 6
    assert third.replayed == 6


def written(tmp_path: Path) -> Path:
    journal = tmp_path / "journal"
    Remembered(plain(), journal, name="v").ask(pictures())
    return journal


def test_a_last_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    journal = written(tmp_path)
    journal.write_text(journal.read_text()[:-9])
    meter = Meter(plain())
    victim = Remembered(meter, journal, name="v")
    assert victim.ask(pictures()).queries == 6
    assert (victim.replayed, meter.queries) == (5, 1)
    assert Remembered(plain(), journal, name="v").ask(pictures()).queries == 6


@pytest.mark.parametrize(
    "damage",
    [
        b"no json\n",
        b"[1]\n",
        b"3\n",
        b'{"other": 1}\n',
        b'{"answers_of": "v"}\n{"image": "a"}\n',
        b'{"answers_of": "v"}\n{"image": "a", "label": null, "scores": null}\n',
        b'{"answers_of": "v"}\n{"image": "a", "label": 1, "scores": ["x"]}\n',
        b'{"answers_of": "v"}\n{"image": "a", "label": Infinity, "scores": null}\n',
        b"\xff\xfe\x00damage\n",
    ],
)
def test_a_damaged_journal_is_named(tmp_path: Path, damage: bytes) -> None:
    journal = tmp_path / "journal"
    journal.write_bytes(damage)
    with pytest.raises(ConfigError, match="damaged"):
        Remembered(plain(), journal, name="v")


def test_a_journal_of_another_victim_is_left_alone(tmp_path: Path) -> None:
    journal = written(tmp_path)
    journal.write_text(journal.read_text() + '{"image": "ab')
    before = journal.read_bytes()
    with pytest.raises(ConfigError, match="'v'"):
        Remembered(plain(), journal, name="other")
    assert journal.read_bytes() == before


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("milk, bread")
    with pytest.raises(ConfigError):
        Remembered(plain(), notes, name="v")
    assert notes.read_text() == "milk, bread"


@pytest.mark.parametrize("labels", [False, True])
def test_an_attack_survives_failures_and_a_rate_limit(labels: bool) -> None:
    victim: Victim = LabelOnly(plain()) if labels else plain()
    images = pictures(2)
    right = told(plain(), images).argmax(1)
    settings = AttackSettings(radius=0.01, query_budget=15)
    name = "edge" if labels else "square"
    with serving(
        victim, failure_rate=0.3, rate_limit=300.0, generator=stream(0, "failures")
    ) as server:
        transport = Http(url=server.url, retries=30, pause_s=0.001)
        meter = Meter(RemoteVictim(transport=transport, tells=victim.tells))
        found = attack(meter, images, right, make_attacker(name, victim.tells, {}), settings)
        assert server.failures > 0
        assert server.queries == meter.queries == sum(one.queries for one in found) > 0
    local = attack(victim, images, right, make_attacker(name, victim.tells, {}), settings)
    for here, there in zip(local, found, strict=True):
        assert torch.equal(here.delta, there.delta)
        assert here.queries == there.queries


def test_remote_answers_are_the_local_ones_also_in_parts_and_refused() -> None:
    images = pictures()
    with serving(QueryLimit(plain(), 4)) as server:
        transport = Http(url=server.url, retries=0)
        answers = RemoteVictim(transport=transport, batch=5).ask(images)
    assert answers.answered.tolist() == [True] * 4 + [False] * 2
    assert answers.scores is not None
    assert torch.equal(answers.scores[:4], told(plain(), images[:4]))


def test_a_remote_victim_of_the_top_scores_can_be_asked() -> None:
    images = pictures()
    with serving(TopScores(plain(), 2)) as server:
        remote = RemoteVictim(transport=Http(url=server.url, retries=0))
        found = told(remote, images)
    assert torch.equal(found.nan_to_num(9), told(TopScores(plain(), 2), images).nan_to_num(9))


def test_labels_may_be_names_and_unknown_ones_are_not_asked_again() -> None:
    answer = b'{"labels": ["dog", "a cat", null, 0]}'
    told = read_json(answer, 4, "labels", ["a cat", "dog"])
    assert told.labels.tolist()[:2] == [1, 0]
    assert told.answered.tolist() == [True, True, False, True]
    for classes, why in (([], "'dog', a name"), (["a cat"], "'dog', none of the 1 classes")):
        with pytest.raises(Final, match=why):
            read_json(answer, 4, "labels", classes)
    program = "import json; print(json.dumps({'labels': ['a cat'] * 6}))"
    transport = Command(command=[sys.executable, "-c", program], retries=0)
    remote = RemoteVictim(transport=transport, tells="labels", classes=["dog", "a cat"])
    assert remote.ask(pictures()).labels.tolist() == [1] * 6


def test_a_dead_endpoint_is_named() -> None:
    with serving(plain()) as server:
        url = server.url
    with pytest.raises(ObjectiveError, match="failed 2 times"):
        RemoteVictim(transport=Http(url=url, retries=1, pause_s=0.001)).ask(pictures())
    with serving(plain(), failure_rate=1.0, generator=stream(0, "f")) as server:
        transport = Http(url=server.url, retries=2, pause_s=0.001)
        with pytest.raises(ObjectiveError, match="500"):
            RemoteVictim(transport=transport).ask(pictures())
        assert (server.failures, server.queries) == (3, 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff",
        b"[]",
        b"3",
        b"null",
        b'{"labels": [1, 2]}',
        b'{"logits": 3}',
        b'{"logits": [[1, 2]]}',
        b'{"logits": [[1, 2], [1]]}',
        b'{"logits": [[1, 2], ["a", 2]]}',
        b'{"logits": [[1, 2], [null, null]]}',
        b'{"logits": [[1, 2], [Infinity, 2]]}',
        b'{"logits": [1, 2]}',
        b'{"logits": [[], []]}',
    ],
)
def test_answers_that_are_none(answer: bytes) -> None:
    with pytest.raises(ObjectiveError):
        read_json(answer, 2, "logits")


def test_answers_with_null_are_refusals() -> None:
    answers = read_json(b'{"labels": [2, null]}', 2, "labels")
    assert (answers.labels.tolist(), answers.answered.tolist()) == ([2, UNKNOWN], [True, False])
    assert read_json(b'{"logits": [null, null]}', 2, "logits").queries == 0
    answers = read_json(b'{"logits": [null, [1, 2]]}', 2, "logits")
    assert answers.labels.tolist() == [UNKNOWN, 1]
    answers = read_json(b'{"logits": [[null, -2], [1, 2]]}', 2, "logits")
    assert answers.labels.tolist() == [1, 1]
    assert answers.queries == 2


@pytest.mark.parametrize("labels", [[1.5, 0.0], [[1], [0]], ["a", "b"], [1], [math.nan, 1.0]])
def test_labels_that_are_none(labels: list[Any]) -> None:
    with pytest.raises(ObjectiveError):
        read_answers(labels, 2, "labels")


class Summed(torch.nn.Module):
    """Notes how many images it is asked about at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(images))
        return images.flatten(1)[:, :3].double()


@pytest.mark.parametrize(("side", "asked"), [(148, [4, 4, 1]), (147, [9])])
def test_a_module_is_asked_about_few_large_images_at_a_time(side: int, asked: list[int]) -> None:
    images = torch.rand(9, 3, side, side, generator=torch.Generator().manual_seed(0))
    module = Summed()
    told = ModuleVictim(module).ask(images).scores
    assert module.asked == asked
    assert told is not None
    assert torch.equal(told.double(), images.flatten(1)[:, :3].double())


def test_parts_of_other_widths_do_not_lose_scores_in_silence() -> None:
    """An endpoint that tells 3 scores, then 2, is broken; what was answered stays or it is said."""
    parts = [from_scores(torch.tensor([[1.0, 2.0, 3.0]])), from_scores(torch.tensor([[5.0, 4.0]]))]
    try:
        joined = join_answers(parts)
    except ObjectiveError:
        return
    assert joined.scores is not None
    assert not bool(joined.scores[1].isnan().all())


def test_margins_by_hand() -> None:
    answers = from_scores(torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]]))
    assert Goal(0).losses(answers, "logits").tolist() == [1.0, -5.0]
    assert Goal(0, 2).losses(answers, "logits").tolist() == [1.0, 4.0]
    assert Goal(0).reached(answers).tolist() == [False, True]
    assert Goal(0, 1).reached(answers).tolist() == [False, True]
    p = from_scores(torch.tensor([[0.7, 0.2, 0.1]]))
    wanted = math.log(0.7 + 1e-6) - math.log(0.2 + 1e-6)
    assert Goal(0).losses(p, "probabilities").tolist() == pytest.approx([wanted], abs=1e-6)


def test_cross_entropies_by_hand() -> None:
    answers = from_scores(torch.tensor([[math.log(3.0), 0.0]]))
    away, near = Goal(0, None, "cross_entropy"), Goal(0, 1, "cross_entropy")
    assert away.losses(answers, "logits").tolist() == pytest.approx([math.log(1.5)])
    assert near.losses(answers, "logits").tolist() == pytest.approx([math.log(2.0)])


def test_losses_of_labels_orders_and_refusals_by_hand() -> None:
    answers = Answers(torch.tensor([0, 2, UNKNOWN]), None, torch.tensor([True, True, False]))
    for goal in (Goal(0), Goal(0, 2)):
        assert goal.losses(answers, "labels")[:2].tolist() == [1.0, -1.0]
        assert bool(goal.losses(answers, "labels")[2].isnan())
        assert goal.reached(answers).tolist() == [False, True, False]
    order = Answers(
        torch.full((3,), UNKNOWN),
        torch.tensor([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]]),
        torch.ones(3, dtype=torch.bool),
    )
    assert Goal(0).losses(order, "order").tolist() == [0.0, -1.0, -2.0]
    assert Goal(0, 1).losses(order, "order").tolist() == [2.0, 1.0, 0.0]
    assert not bool(Goal(0).reached(order).any())


def test_scores_that_are_not_told_are_the_lowest_told() -> None:
    nan = math.nan
    answers = Answers(
        torch.tensor([1, 1]),
        torch.tensor([[nan, 3.0, 1.0], [2.0, 4.0, nan]]),
        torch.ones(2, dtype=torch.bool),
    )
    assert Goal(0).losses(answers, "logits").tolist() == [-2.0, -2.0]
    assert Goal(1).losses(answers, "logits").tolist() == [2.0, 2.0]
    assert Goal(1, 2).losses(answers, "logits").tolist() == [2.0, 2.0]
    with pytest.raises(ConfigError, match="class 3"):
        Goal(3).losses(answers, "logits")
    assert from_labels(torch.tensor([1])).queries == 1


def test_weights_of_ranks_by_hand() -> None:
    """Places 2, 0, 3, 1 of 4: weights 3 - 2 r are -1, 3, -3, 1, over -4 * 3 / 2."""
    losses, u = torch.tensor([0.5, -1.0, 7.0, 0.2]), torch.eye(4)
    wanted = torch.tensor([-1.0, 3.0, -3.0, 1.0]) / -6
    torch.testing.assert_close(rank_gradient(losses, u), wanted)
    tied = rank_gradient(torch.tensor([1.0, 1.0, 2.0, 0.0]), u)
    torch.testing.assert_close(tied, torch.tensor([0.0, 0.0, -3.0, 3.0]) / -6)
    refused = rank_gradient(torch.tensor([0.5, math.nan, 7.0, 0.2]), u)
    torch.testing.assert_close(refused, torch.tensor([0.0, 0.0, -2.0, 2.0]) / -3)
    assert not bool(rank_gradient(torch.full((4,), math.nan), u).any())


def test_ranks_know_only_the_order_and_no_shift() -> None:
    losses = torch.from_numpy(stream(0, "losses").standard_normal(9))
    u = torch.from_numpy(stream(0, "u").standard_normal((9, 5)))
    gradient = rank_gradient(losses, u)
    assert torch.equal(gradient, rank_gradient(losses.exp() * 7 - 3, u))
    torch.testing.assert_close(gradient, rank_gradient(losses, u + 10 * u[:1]))
    torch.testing.assert_close(-gradient, rank_gradient(-losses, u))
    slope = torch.arange(5, dtype=torch.float64)
    assert float(rank_gradient(u @ slope, u) @ slope) > 0


def test_rounding_at_a_tie_of_two_classes_is_no_noise() -> None:
    near = torch.tensor([[-0.0495338067, -0.0495338000]])
    assert not differ(from_scores(near), from_scores(near + torch.tensor([[8e-9, 0.0]])))
    assert differ(from_scores(near), from_scores(near + torch.tensor([[1e-5, 0.0]])))
    assert differ(from_scores(10 * near), from_scores(10 * near + torch.tensor([[1e-4, 0.0]])))


@pytest.mark.parametrize("classes", ["abc", [1, 2], ["a", "a"], ["a", ""]])
def test_names_of_classes_are_a_list_of_names_each_once(classes: Any) -> None:
    with pytest.raises(ConfigError, match="classes="):
        RemoteVictim(transport=Http(url="http://127.0.0.1:1"), tells="labels", classes=classes)

"""The laws of attackers: one suite for all, on a linear victim of images 8 x 8."""

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedzo.attacks.attack import AttackSettings, Found, attack
from fedzo.attacks.attacker import Attacker, Reply, Search, Task, start
from fedzo.attacks.attackers.boundary import Boundary
from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.names import COORDINATES, CoordinateName, Norm
from fedzo.attacks.region import region_around
from fedzo.attacks.victims.memory import Remembered
from fedzo.attacks.victims.victim import AnswerKind, Answers, CallableVictim, Victim
from fedzo.attacks.victims.wrappers import LabelOnly, Meter, OrderOnly, QueryLimit, ask_some
from fedzo.errors import ConfigError, FedzoError
from fedzo.randomness import stream
from fedzo.surrogates.spatial import SpatialPrior
from scenarios.attacks.attackers import ATTACKERS, SCORES, make_attacker

SHAPE = (1, 8, 8)
WEIGHTS = stream(0, "weights").standard_normal((3, 64))
OUTSIDE = ("edge", "hopskipjump", "cgba")
ONLY: dict[str, Norm] = {"cgba": "l2"}
BUDGETS = {"fzoos": 20, **dict.fromkeys(OUTSIDE, 40)}
"""Of an image, in queries; of the others 24."""
RADII: dict[Norm, float] = {"linf": 0.03, "l2": 0.25, "l0": 5, "patch": 3}


def able(name: str, norm: str) -> bool:
    return ONLY.get(name, norm) == norm


CASES: list[tuple[str, Norm]] = [
    *((name, norm) for name in ATTACKERS for norm in ("linf", "l2") if able(name, norm)),
    *((name, norm) for name in ("thompson", "square") for norm in ("l0", "patch")),
]
BALLS = [case for case in CASES if case[1] in ("linf", "l2")]
NORMS: Iterable[Norm] = cycle(("linf", "l2"))
DEFAULT: list[tuple[str, Norm]] = [
    *((name, ONLY.get(name, norm)) for name, norm in zip(ATTACKERS, NORMS, strict=False)),
    ("thompson", "l0"),
    ("square", "patch"),
]
"""Of laws that the norm hardly touches: one a attacker, and each norm; the others are slow."""


def some(cases: Iterable[tuple[str, Norm]]) -> pytest.MarkDecorator:
    slow = pytest.mark.slow
    chosen = [pytest.param(*case, marks=() if case in DEFAULT else slow) for case in cases]
    return pytest.mark.parametrize(("name", "norm"), chosen)


of_each = some(CASES)
of_balls = some(BALLS)


def scores(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return linear scores, the same bits whatever else is asked."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    return np.array([(WEIGHTS * (row - 0.5)).sum(axis=1) for row in flat]).reshape(-1, 3)


def judge(images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(scores(images.numpy()).argmax(axis=1))


def pictures(count: int = 2, key: str = "images") -> torch.Tensor:
    drawn = stream(0, key).uniform(-0.1, 1.1, (count, *SHAPE))
    return torch.from_numpy(drawn).float().clamp(0, 1)


def close_pictures(count: int = 2) -> torch.Tensor:
    """Return images whose margin is small, so that attacks succeed, but not at once."""
    images = []
    for image in pictures(count):
        values = scores(image[None].numpy())[0]
        first, second = np.argsort(-values)[:2]
        gap = WEIGHTS[first] - WEIGHTS[second]
        excess = (values[first] - values[second] - 0.6) / (gap @ gap)
        moved = image - torch.from_numpy(excess * gap).reshape(SHAPE).float()
        images.append(moved.clamp(0, 1))
    return torch.stack(images)


class Recorder:
    """Counts and keeps every image that the linear function is asked."""

    def __init__(self) -> None:
        self.asked: list[NDArray[np.float32]] = []

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        self.asked.append(images.copy())
        return scores(images)


def victim_for(name: str, recorder: Any = scores) -> Victim:
    victim = CallableVictim(recorder)
    needs = ATTACKERS[name].needs
    if "labels" in needs:
        return LabelOnly(victim)
    return OrderOnly(victim) if "order" in needs else victim


def attacker_of(name: str, tells: AnswerKind) -> Attacker:
    return make_attacker(name, tells, {})


def coordinates_of(name: Any) -> Coordinates:
    """Return these coordinates, of four waves or blocks a side where there are some."""
    return Coordinates(name, 4) if name in ("waves", "blocks") else Coordinates(name)


def settings_for(name: str, norm: Norm, **more: Any) -> AttackSettings:
    given_ = {"norm": norm, "radius": RADII[norm], "query_budget": BUDGETS.get(name, 24), **more}
    return AttackSettings(**given_)


def run(
    name: str, settings: AttackSettings, images: torch.Tensor, **more: Any
) -> tuple[list[Found], Recorder, Meter]:
    recorder = Recorder()
    meter = Meter(victim_for(name, recorder))
    found = attack(meter, images, judge(images), attacker_of(name, meter.tells), settings, **more)
    return found, recorder, meter


def same(one: Found, other: Found) -> bool:
    """Say whether all fields are the same bits; NaN is itself."""
    left, right = (replace(f, delta=torch.zeros(1), loss=0.0) for f in (one, other))
    fields = [(f.index, f.success, f.queries, f.refused, f.label) for f in (left, right)]
    losses = np.array_equal(np.array([one.loss]), np.array([other.loss]), equal_nan=True)
    return fields[0] == fields[1] and losses and torch.equal(one.delta, other.delta)


def inside(found: Found, image: torch.Tensor, norm: Norm) -> None:
    ball = region_around(image[None], norm, RADII[norm])
    assert ball.size(found.delta) <= RADII[norm] + 1e-5
    moved = image.reshape(-1) + found.delta
    assert float(moved.min()) >= -1e-5
    assert float(moved.max()) <= 1 + 1e-5


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_bounds_counts_and_success(name: str, norm: Norm) -> None:
    images = close_pictures()
    settings = settings_for(name, norm)
    found, recorder, meter = run(name, settings, images)
    asked = np.concatenate(recorder.asked)
    assert asked.min() >= 0
    assert asked.max() <= 1
    assert meter.queries == sum(one.queries for one in found) == len(asked)
    assert all(one.queries <= settings.query_budget for one in found)
    assert all(one.refused == 0 for one in found)
    for one, image, label in zip(found, images, judge(images), strict=True):
        inside(one, image, norm)
        moved = (image + one.delta.reshape(SHAPE)).clamp(0, 1)
        told = int(judge(moved[None])[0])
        if one.success:
            assert told != int(label)
            assert told == one.label
        elif name != "rank":
            assert one.queries > 0


@pytest.mark.more
@pytest.mark.parametrize(("name", "norm"), CASES)
@examples(max_examples=4)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([0.001, 0.3, 1.0, 40.0]),
    budget=st.integers(1, 40),
    coordinates=st.sampled_from(COORDINATES),
)
def test_nobody_leaves_the_ball_or_the_range(
    name: str, norm: Norm, seed: int, size: float, budget: int, coordinates: CoordinateName
) -> None:
    """Whatever the seed, radius, budget and coordinates are; labels may lead outside on the way."""
    drawn = stream(seed, "drawn").uniform(-0.2, 1.2, (2, *SHAPE))
    images = torch.from_numpy(drawn).float().clamp(0, 1)
    radius = RADII[norm] * (size if norm in ("linf", "l2") else 1)
    found, recorder, meter = run(
        name,
        settings_for(
            name,
            norm,
            seed=seed,
            radius=radius,
            query_budget=budget,
            coordinates=coordinates_of(coordinates),
        ),
        images,
    )
    asked = np.concatenate(recorder.asked)
    assert asked.min() >= 0
    assert asked.max() <= 1
    assert meter.queries == sum(one.queries for one in found) == len(asked)
    balls = [region_around(image[None], norm, radius) for image in images]
    assert all(ball.contains(one.delta) for ball, one in zip(balls, found, strict=True))
    if name in OUTSIDE:
        return
    for row in torch.from_numpy(asked):
        # Rounding of image + delta - image is no change of a pixel.
        changes = [(row - image).reshape(-1) for image in images]
        changes = [torch.where(c.abs() < 1e-6, torch.zeros_like(c), c) for c in changes]
        pairs = zip(balls, changes, strict=True)
        assert any(ball.size(c) <= radius * (1 + 1e-5) + 1e-6 for ball, c in pairs)


@pytest.mark.more
@of_each
def test_the_seed_alone_decides(name: str, norm: Norm) -> None:
    images = pictures()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    settings = settings_for(name, norm)
    first, before, _ = run(name, settings, images)
    again, _, _ = run(name, settings, images)
    other, recorder, _ = run(name, replace(settings, seed=1), images)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch_state, torch.get_rng_state())
    now = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(numpy_state[1], now[1])
    assert numpy_state[2:] == now[2:]
    asked = [np.concatenate(r.asked) for r in (before, recorder)]
    assert not np.array_equal(asked[0], asked[1])
    assert len(other) == len(first)


@pytest.mark.more
@of_each
def test_nobody_depends_on_who_is_attacked_beside(name: str, norm: Norm) -> None:
    images = close_pictures()
    settings = settings_for(name, norm)
    among, _, _ = run(name, settings, images)
    alone, _, _ = run(name, settings, images[:1])
    others = torch.cat([images[:1], pictures(2, key="others")])
    beside, _, _ = run(name, settings, others)
    batched, _, _ = run(name, replace(settings, batch=7), images)
    assert same(among[0], alone[0])
    assert same(among[0], beside[0])
    assert all(same(a, b) for a, b in zip(among, batched, strict=True))


@pytest.mark.more
@pytest.mark.parametrize(
    ("name", "norm"), [case for case in BALLS if ATTACKERS[case[0]].needs == SCORES]
)
def test_attackers_by_scores_attack_by_distances_of_the_boundary(name: str, norm: Norm) -> None:
    """With labels alone: counts, bounds, real success, the same again and beside others."""
    images = close_pictures()
    radius = {"linf": 0.15, "l2": 1.2}[norm]
    settings = settings_for(name, norm, radius=radius, query_budget=400, loss="boundary")

    def found_among(images: torch.Tensor) -> list[Found]:
        meter = Meter(LabelOnly(CallableVictim(scores)))
        attacker = make_attacker(name, "labels", {}, loss="boundary")
        found = attack(meter, images, judge(images), attacker, settings)
        assert meter.queries == sum(one.queries for one in found)
        assert all(one.queries <= 400 for one in found)
        return found

    found = found_among(images)
    assert all(one.success for one in found)
    for one, image, label in zip(found, images, judge(images), strict=True):
        assert region_around(image[None], norm, radius).contains(one.delta)
        moved = (image + one.delta.reshape(SHAPE)).clamp(0, 1)
        assert int(judge(moved[None])[0]) != int(label)
    assert same(found[0], found_among(images[:1])[0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_distances_of_the_boundary_by_hand(norm: Norm) -> None:
    """Success from size 0.8 on: L = log(0.8 / 0.2), within the tolerance; never: log 8."""
    asked: list[int] = []
    told: list[torch.Tensor] = []

    class Once:
        def search(self, task: Task) -> Search:
            reply = yield torch.stack([torch.eye(1, 4)[0], -torch.eye(1, 4)[0], torch.zeros(4)])
            told.append(reply.losses)

    region = region_around(torch.zeros(1, 1, 2, 2), norm, 0.2)
    running = start(Boundary(Once()), Task(region, Coordinates(), 100, stream(0, "search")))
    while not running.done:
        asked.append(len(running.asked))
        reached = running.asked[:, 0] >= 0.8
        running.tell(Reply(1.0 - 2.0 * reached.double(), reached))
    [losses] = told
    assert asked == [3, 3] + [1] * Boundary(Once()).bisections
    assert math.log(4) <= float(losses[0]) <= math.log(4) + 0.02
    assert losses[1:].tolist() == pytest.approx([math.log(8)] * 2)


def test_boundaries_need_labels_and_attackers_that_do_not_look_for_them() -> None:
    for name in OUTSIDE:
        with pytest.raises(ConfigError, match="itself"):
            make_attacker(name, "labels", {}, loss="boundary")
    with pytest.raises(ConfigError, match="labels"):
        make_attacker("nes", "order", {}, loss="boundary")
    with pytest.raises(ConfigError, match="or loss boundary"):
        make_attacker("nes", "labels", {})


@pytest.mark.parametrize(("name", "norm"), [case for case in BALLS if case[0] != "rank"])
def test_everyone_succeeds_in_a_large_ball(name: str, norm: Norm) -> None:
    """The images have a margin of 0.6, which a tenth of these radii would be enough for."""
    images = close_pictures()
    radius = {"linf": 0.15, "l2": 1.2}[norm]
    found, _, _ = run(name, settings_for(name, norm, radius=radius, query_budget=200), images)
    assert all(one.success for one in found)


def test_rank_comes_nearer_to_the_boundary_on_average() -> None:
    images = close_pictures(4)
    found, _, _ = run("rank", settings_for("rank", "linf", radius=0.1, query_budget=200), images)
    moved = torch.stack([f.delta.reshape(SHAPE) for f in found]) + images
    assert float((judge(moved.clamp(0, 1)) != judge(images)).double().mean()) >= 0.75


@of_balls
def test_targeted_success_is_the_target(name: str, norm: Norm) -> None:
    images = close_pictures()
    labels = judge(images)
    targets = (labels + 1) % 3
    radius = {"linf": 0.3, "l2": 2.5}[norm]
    settings = settings_for(name, norm, radius=radius, query_budget=120)
    found, _, _ = run(name, settings, images, targets=targets)
    for one, image, target in zip(found, images, targets, strict=True):
        told = int(judge((image + one.delta.reshape(SHAPE)).clamp(0, 1)[None])[0])
        if one.success:
            assert told == int(target) == one.label
    if name in ("thompson", "square", "nes", "simba"):
        assert any(one.success for one in found)


@of_balls
@pytest.mark.parametrize("budget", [1, 13])
def test_no_budget_is_exceeded(name: str, norm: Norm, budget: int) -> None:
    settings = settings_for(name, norm, radius=0.001, query_budget=budget)
    found, _, meter = run(name, settings, pictures(2))
    assert meter.queries == sum(one.queries for one in found)
    assert all(one.queries <= budget for one in found)
    if name not in ("fzoos", "zo"):
        assert all(one.queries == budget for one in found)


@of_each
def test_universal_perturbations(name: str, norm: Norm) -> None:
    images = close_pictures(4)
    settings = settings_for(name, norm, universal=True, query_budget=4 * 20, universal_rate=0.5)
    [found], recorder, meter = run(name, settings, images)
    assert meter.queries == found.queries == len(np.concatenate(recorder.asked))
    assert found.queries <= settings.query_budget
    ball = region_around(images, norm, RADII[norm])
    assert ball.size(found.delta) <= RADII[norm] + 1e-5
    moved = (images + found.delta.reshape(SHAPE)).clamp(0, 1)
    if found.success:
        assert float((judge(moved) != judge(images)).double().mean()) >= 0.5


@pytest.mark.parametrize("name", ["square", "thompson"])
def test_a_universal_budget_below_one_proposal_asks_nothing(name: str) -> None:
    settings = settings_for(name, "linf", universal=True, query_budget=2)
    try:
        [found], recorder, _ = run(name, settings, pictures(3))
    except ConfigError:
        return
    assert found.queries == 0
    assert not any(len(part) for part in recorder.asked)


@of_each
def test_levels(name: str, norm: Norm) -> None:
    images = (close_pictures() * 255).round() / 255
    settings = settings_for(name, norm, levels=255, radius=max(RADII[norm], 8 / 255))
    found, recorder, _ = run(name, settings, images)
    asked = np.concatenate(recorder.asked) * 255
    assert np.abs(asked - asked.round()).max() < 1e-2
    for one, image in zip(found, images, strict=True):
        ball = region_around(image[None], norm, settings.radius)
        assert ball.size(one.delta) <= settings.radius + 1e-5
        steps = (image.reshape(-1) + one.delta) * 255
        assert float((steps - steps.round()).abs().max()) < 1e-2


@pytest.mark.parametrize("coordinates", ["waves", "blocks", "tanh"])
@of_balls
def test_coordinates(name: str, norm: Norm, coordinates: str) -> None:
    images = close_pictures(2)
    settings = settings_for(name, norm, coordinates=coordinates_of(coordinates), query_budget=20)
    found, _, meter = run(name, settings, images)
    assert meter.queries == sum(one.queries for one in found)
    for one, image in zip(found, images, strict=True):
        inside(one, image, norm)


@of_balls
def test_color_images_that_are_not_square(name: str, norm: Norm) -> None:
    weights = stream(0, "colors").standard_normal((3, 3 * 5 * 7))

    def function(images: NDArray[np.float32]) -> NDArray[np.float64]:
        return images.reshape(len(images), -1).astype(np.float64) @ weights.T

    images = torch.from_numpy(stream(0, "colorful").random((2, 3, 5, 7))).float()
    labels = torch.from_numpy(function(images.numpy()).argmax(axis=1))
    victim = victim_for(name, function)
    attacker = attacker_of(name, victim.tells)
    for one in attack(victim, images, labels, attacker, settings_for(name, norm)):
        assert region_around(images[:1], norm, RADII[norm]).size(one.delta) <= RADII[norm] + 1e-5


class Refusing:
    """Refuses the first image, or every third."""

    def __init__(self, victim: Victim, every: int) -> None:
        self.victim, self.every, self.seen = victim, every, 0

    @property
    def tells(self) -> AnswerKind:
        return self.victim.tells

    def ask(self, images: torch.Tensor) -> Answers:
        numbers = torch.arange(self.seen, self.seen + len(images))
        self.seen += len(images)
        served = numbers % self.every != 0 if self.every else numbers > 0
        return ask_some(self.victim, images, served)


@of_balls
@pytest.mark.parametrize("every", [0, 3])
def test_refusals_are_survived(name: str, every: int, norm: Norm) -> None:
    meter = Meter(Refusing(victim_for(name), every))
    settings = settings_for(name, norm, radius=0.001, query_budget=25)
    images = pictures(1)
    [found] = attack(meter, images, judge(images), attacker_of(name, meter.tells), settings)
    assert found.queries == meter.queries <= 25
    assert found.refused == meter.refused >= 1


@pytest.mark.more
@pytest.mark.parametrize("name", ATTACKERS)
@pytest.mark.parametrize("limit", [0, 22])
def test_a_victim_that_stops_answering_ends_the_attack(name: str, limit: int) -> None:
    meter = Meter(QueryLimit(victim_for(name), limit))
    settings = settings_for(name, ONLY.get(name, "linf"), radius=0.001, query_budget=25)
    images = pictures(1)
    [found] = attack(meter, images, judge(images), attacker_of(name, meter.tells), settings)
    assert found.queries == meter.queries <= limit


@pytest.mark.more
@pytest.mark.parametrize("name", ["thompson", "square", "simba", "nes", "fzoos"])
def test_a_refusal_of_the_first_image_does_not_stop_learning(name: str) -> None:
    """After 300 answers of a linear loss what is asked is far down, had the image been refused."""
    ball = region_around(pictures(1), "linf", 0.03)
    slope = torch.from_numpy(WEIGHTS[0])
    least = float(ball.toward(slope.float()).double() @ slope)
    running = start(
        attacker_of(name, "logits"), Task(ball, Coordinates(), 300, stream(0, "search"))
    )
    told: list[float] = []
    while len(told) < 300:
        losses = running.asked.double() @ slope
        if not told:
            losses[0] = torch.nan
        told += losses.tolist()
        running.tell(Reply(losses, torch.zeros(len(losses), dtype=torch.bool)))
    assert np.mean(told[-30:]) < 0.3 * least < 0


def test_a_prior_of_smooth_gradients_takes_fzoos_further_down() -> None:
    """In pixels; waves are smooth by themselves, and there the lengthscale changes nothing."""
    shape = (2, 9, 9)
    slope = SpatialPrior(shape, 2.0).sample(generator=stream(0, "slope"))
    ball = region_around(torch.full((1, *shape), 0.5), "linf", 0.1)

    def lowest(lengthscale: float, coordinates: Coordinates) -> float:
        attacker = make_attacker("fzoos", "logits", {"lengthscale": lengthscale})
        task = Task(ball, coordinates, 60, stream(0, "search"))
        running, losses = start(attacker, task), torch.empty(0)
        while len(losses) < 60:
            told = running.asked @ slope
            losses = torch.cat([losses, told])
            running.tell(Reply(told, torch.zeros(len(told), dtype=torch.bool)))
        return float(losses.min())

    pixels, waves = Coordinates(), Coordinates("waves", 3)
    assert lowest(2.0, pixels) < 1.2 * lowest(0.0, pixels) < 0
    assert lowest(2.0, waves) == lowest(0.0, waves)
    with pytest.raises(ConfigError, match=r"lengthscale=-1\.0"):
        make_attacker("fzoos", "logits", {"lengthscale": -1.0})


@pytest.mark.more
@pytest.mark.parametrize("name", ATTACKERS)
def test_memory_is_free_and_counted_once(name: str) -> None:
    """Answers that were asked before cost nothing, also where the budget cuts a request."""
    if ATTACKERS[name].needs[-1] == "order":
        pytest.skip("an order cannot be remembered")
    images = pictures(2)
    settings = settings_for(name, ONLY.get(name, "linf"), radius=0.001, query_budget=21)
    meter = Meter(victim_for(name))
    victim = Remembered(meter)
    for _ in range(2):
        before = meter.queries
        found = attack(victim, images, judge(images), attacker_of(name, victim.tells), settings)
        assert all(one.queries <= 21 for one in found)
        assert sum(one.queries for one in found) == meter.queries - before


def test_wrong_inputs_are_named() -> None:
    images, attacker = pictures(2), attacker_of("square", "logits")
    victim, settings = CallableVictim(scores), AttackSettings(query_budget=3)
    for wrong in (images * 2, images - 1, images * torch.nan, images[:0]):
        with pytest.raises(ConfigError):
            attack(victim, wrong, torch.zeros(len(wrong), dtype=torch.int64), attacker, settings)
    with pytest.raises(ConfigError):
        attack(victim, images, torch.zeros(1, dtype=torch.int64), attacker, settings)
    with pytest.raises(ConfigError, match="levels"):
        attack(victim, images, judge(images), attacker, replace(settings, levels=10))


def test_labels_and_targets_that_do_not_fit_are_named() -> None:
    images, attacker = pictures(2), attacker_of("square", "logits")
    victim, settings = CallableVictim(scores), AttackSettings(query_budget=3)
    for label in (3, -1):
        with pytest.raises(FedzoError):
            attack(victim, images, torch.tensor([label, 0]), attacker, settings)


def test_targets_of_another_number_are_named() -> None:
    images, attacker = pictures(2), attacker_of("square", "logits")
    victim, settings = CallableVictim(scores), AttackSettings(query_budget=3)
    with pytest.raises(FedzoError):
        attack(victim, images, judge(images), attacker, settings, targets=torch.tensor([1]))

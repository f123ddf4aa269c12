"""The methods against what they are made of, limits, and independent references."""

import math
from collections.abc import Callable
from dataclasses import replace

import cma
import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.blackbox.auto import WORTH, AutoSearch
from fedzo.blackbox.cma_es import CmaSearch, CmaSettings
from fedzo.blackbox.line import ALONG, MANY
from fedzo.blackbox.method import Ground, Method
from fedzo.blackbox.random_search import RandomSearch
from fedzo.blackbox.slope_search import STOPS, SlopeSearch, SlopeSettings
from fedzo.blackbox.two_point import TwoPointSearch, TwoPointSettings
from fedzo.estimation.directions import sample_directions
from fedzo.optimizers import Adam
from fedzo.randomness import stream

D = 5
Function = Callable[[Float[Tensor, "k d"]], Float[Tensor, " k"]]


def ground(dim: int = D, bound: float = math.inf, **options: object) -> Ground:
    edge = torch.full((dim,), bound, dtype=torch.float64)
    zeros = torch.zeros(dim, dtype=torch.float64)
    made = Ground(start=zeros, lower=-edge, upper=edge, least=zeros, seed=4)
    return replace(made, **options)  # type: ignore[arg-type]


def bowl(x: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
    return (x - 0.2).square().sum(1)


def valley(x: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
    y = 4 * x + 0.5
    return (100 * (y[:, 1:] - y[:, :-1].square()).square() + (1 - y[:, :-1]).square()).sum(1)


def waves(x: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
    y = 10 * (x - 0.21)
    return (y.square() - 10 * torch.cos(2 * math.pi * y) + 10).sum(1)


def lowest(method: Method[object], f: Function, budget: int) -> float:
    state, best, count = method.init(), math.inf, 0
    while count < budget and not method.finished(state):
        state, points = method.propose(state)
        values = f(points)
        best, count = min(best, float(values.min())), count + len(points)
        state = method.absorb(state, points, values)
    return best


def test_fzoos_probes_orthonormal_directions_of_a_step_and_then_its_walk() -> None:
    method = SlopeSearch(ground())
    state = method.init()
    sizes = []
    for _ in range(5):
        state, points = method.propose(state)
        if state.phase == "probe":
            away = points - state.x
            radius = 0.02 * min(1.0, state.step / 0.03) * math.sqrt(D)
            expected = radius**2 * torch.eye(D, dtype=torch.float64)
            torch.testing.assert_close(away @ away.T, expected, atol=1e-12, rtol=1e-9)
        sizes.append(len(points))
        state = method.absorb(state, points, bowl(points))
    assert sizes == [1, D, len(STOPS), D, len(STOPS)]


def test_fzoos_reaches_the_bottom_of_a_bowl_and_ends() -> None:
    method = SlopeSearch(ground())
    assert lowest(method, bowl, 2000) < 1e-14


@pytest.mark.more
def test_fzoos_follows_a_curved_valley_that_fedzo_does_not() -> None:
    ours = lowest(SlopeSearch(ground(3)), valley, 600)
    theirs = lowest(TwoPointSearch(ground(3, budget=600)), valley, 600)
    assert ours < 0.1 * theirs


def test_fzoos_with_noise_does_not_believe_single_values() -> None:
    noise = stream(1, "noise")

    def noisy(x: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
        return bowl(x) + 1e-3 * torch.from_numpy(noise.standard_normal(len(x)))

    method = SlopeSearch(ground())
    state = method.init()
    for _ in range(40):
        state, points = method.propose(state)
        state = method.absorb(state, points, noisy(points))
    assert state.prior.noise > 0
    assert float(bowl(state.x.unsqueeze(0))) < 0.02 * float(bowl(torch.zeros(1, D).double()))


def test_one_step_of_fedzo_is_adam_on_central_differences() -> None:
    settings = TwoPointSettings(num_directions=3, lr=0.05, mu=0.01)
    method = TwoPointSearch(ground(), settings)
    state = method.init()
    state, points = method.propose(state)
    state = method.absorb(state, points, bowl(points))
    state, points = method.propose(state)
    after = method.absorb(state, points, bowl(points))
    u = sample_directions("orthogonal", 3, D, generator=stream(4, "directions", 1))
    slopes = -2 * 0.2 * u.sum(1)  # central differences of a quadratic are exact
    gradient = D / 3 * slopes @ u
    x = torch.zeros(D, dtype=torch.float64)
    expected = Adam().step(Adam().init(x), x, gradient, 0.05)[1]
    torch.testing.assert_close(after.x, expected)


def test_the_rate_of_fedzo_falls_to_nothing_over_the_budget() -> None:
    assert lowest(TwoPointSearch(ground(budget=1500)), bowl, 1500) < 1e-6
    assert lowest(TwoPointSearch(ground(), TwoPointSettings(lr=1e-5)), bowl, 200) > 0.15


def test_cma_is_pycma_with_random_numbers_from_a_stream() -> None:
    method = CmaSearch(ground())
    generator = stream(4, "cma", 0)
    options = {"randn": lambda *n: generator.standard_normal(n or None), "seed": math.nan}
    es = cma.CMAEvolutionStrategy([0.0] * D, 0.3, {**options, "verbose": -9, "verb_log": 0})
    es.inject([np.zeros(D)], force=True)
    state = method.init()
    for _ in range(10):
        state, points = method.propose(state)
        theirs = np.array(es.ask())
        assert np.array_equal(points.numpy(), theirs)
        values = bowl(points)
        es.tell(list(theirs), values.tolist())
        state = method.absorb(state, points, values)


def test_cma_restarts_with_twice_the_points() -> None:
    method = CmaSearch(ground(2, bound=1.0))
    state, sizes = method.init(), []
    for _ in range(200):
        state, points = method.propose(state)
        sizes.append(len(points))
        state = method.absorb(state, points, bowl(points))
        if len(set(sizes)) == 2:
            break
    assert sorted(set(sizes)) == [6, 12]
    again = CmaSearch(ground(2, bound=1.0))
    assert torch.equal(again.propose(state)[1], method.propose(state)[1])


def test_cma_lives_through_a_generation_of_failures() -> None:
    method = CmaSearch(ground(), CmaSettings(popsize=8))
    state, points = method.propose(method.init())
    state = method.absorb(state, points, torch.full((8,), math.inf, dtype=torch.float64))
    state, more = method.propose(state)
    assert not torch.equal(points, more)
    assert more.isfinite().all()


def test_random_search_fills_the_box() -> None:
    method = RandomSearch(ground(2, bound=0.5, parallel=2000))
    points = method.propose(method.init())[1]
    assert points.abs().max() <= 0.5
    error = (1 / 12 / 2000) ** 0.5
    assert points.mean(0).abs().max() < 5 * error
    assert abs(float(points.var()) - 1 / 12) < 0.01


def test_auto_looks_along_a_line_and_is_fzoos_until_it_hands_over_from_the_best_point() -> None:
    method, fzoos = AutoSearch(ground(bound=0.5)), SlopeSearch(ground(bound=0.5))
    state, alone, best, low, looks = method.init(), fzoos.init(), torch.zeros(D), math.inf, 0
    while not state.handed:
        looking = not state.looked
        looks += looking
        state, points = method.propose(state)
        alone, same = fzoos.propose(alone)
        assert torch.equal(points[:1] if looking else points, same)
        values = valley(points)
        if float(values.min()) < low:
            best, low = points[values.argmin()], float(values.min())
        state = method.absorb(state, points, values)
        alone = fzoos.absorb(alone, same, values[: len(same)])
    assert looks == 1
    assert torch.equal(state.best, best)
    assert "then cma from the best point, because" in state.why
    points = torch.cat([method.propose(state)[1]])
    assert float((points.mean(0) - best).norm()) < 0.3 * math.sqrt(D)
    assert lowest(AutoSearch(ground(bound=0.5)), valley, 3000) < 0.5 * low


def ridges(x: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
    return (x - 0.2).abs().sum(1)


def quartic(x: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
    y = 10 * x
    return (y**4 - 16 * y.square() + 5 * y).sum(1)  # turns three times


def flat(x: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
    return 1e6 + 1e-9 * torch.sin(1e3 * x).sum(1)  # but for rounding


@pytest.mark.parametrize(("bound", "dim", "lines"), [(0.5, D, 1), (math.inf, MANY + 1, 2)])
@pytest.mark.parametrize(
    ("f", "rough"),
    [(waves, True), (bowl, False), (valley, False), (ridges, False), (quartic, False),
     (flat, False)],
)  # fmt: skip
def test_auto_goes_to_cma_where_a_line_goes_up_and_down(
    f: Function, rough: bool, bound: float, dim: int, lines: int
) -> None:
    for seed in range(10):
        method = AutoSearch(ground(dim, bound=bound, seed=seed))
        state, points = method.propose(method.init())
        assert len(points) == 2 + ALONG * lines
        assert torch.equal(points[0], points[1]), "noise shows where a point is asked twice"
        assert ((points[2:] != points[0]).sum(1) == 1).all(), "along one coordinate"
        assert float((points.amax(0) - points.amin(0)).max()) > 0.85, "as wide as the box"
        assert float(points.abs().max()) <= 0.5
        values = f(points)
        state = method.absorb(state, points, values)
        assert state.handed is rough
        if rough:
            assert "cma, because it turns" in state.why
            assert torch.equal(state.begun, points[values.argmin()])


def test_noise_is_not_taken_for_valleys_and_matters_where_it_is_loud() -> None:
    method = AutoSearch(ground(bound=0.5))
    state, points = method.propose(method.init())
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(len(points)))
    faint, loud = (
        method.absorb(state, points, bowl(points) + size * noise) for size in (0.01, 1.0)
    )
    assert not faint.handed
    assert "cma, because noise hides" in loud.why
    lost = waves(points)
    lost[6:] = math.inf
    assert not method.absorb(state, points, lost).handed, "too few to tell"


def test_small_budgets_are_not_spent_on_looking() -> None:
    least = WORTH * (1 + ALONG)
    for budget, looks in ((least - 1, False), (least, True), (None, True)):
        method = AutoSearch(ground(bound=0.5, budget=budget))
        assert (len(method.propose(method.init())[1]) > 1) is looks


def test_auto_begins_with_cma_where_coordinates_move_in_steps() -> None:
    least = torch.tensor([0.0, 0.25, 0.0, 0.0, 0.0], dtype=torch.float64)
    method, cma_es = AutoSearch(ground(least=least)), CmaSearch(ground(least=least))
    state = method.init()
    assert state.why == "cma, because 1 of 5 coordinates move in steps"
    assert torch.equal(method.propose(state)[1], cma_es.propose(cma_es.init())[1])


@pytest.mark.more
@pytest.mark.parametrize("make", [SlopeSearch, TwoPointSearch, CmaSearch, RandomSearch, AutoSearch])
def test_a_function_of_one_number(make: Callable[[Ground], Method[object]]) -> None:
    assert lowest(make(ground(1, bound=1.0, budget=300)), bowl, 300) < 1e-3


def test_settings_are_checked() -> None:
    for settings in (SlopeSettings, TwoPointSettings):
        with pytest.raises(ValueError, match="num_directions"):
            settings(num_directions=-1)
    with pytest.raises(ValueError, match="sigma"):
        CmaSettings(sigma=0.0)

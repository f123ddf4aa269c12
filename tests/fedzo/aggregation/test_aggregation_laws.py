"""Laws R1 to R9 of robust rules, for all of them, on random vectors."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fedzo import aggregation
from fedzo.aggregation import (
    adaptive_clip,
    bucketing,
    caf,
    centered_clipping,
    clip,
    geometric_median,
    krum,
    mean,
    mean_around_median,
    median,
    minimum_diameter,
    multi_krum,
    nearest_neighbor_average,
    nearest_neighbor_mixing,
    parse_aggregator,
    smea,
    trimmed_mean,
)
from fedzo.errors import ConfigError

SEEDS = st.integers(0, 2**32 - 1)
COORDINATEWISE = [median, trimmed_mean, mean_around_median]
DISTANCES = [geometric_median, krum, multi_krum, minimum_diameter, smea, caf]
EQUIVARIANT = [*COORDINATEWISE, *DISTANCES, nearest_neighbor_average]
ROBUST = [*EQUIVARIANT, centered_clipping, clip, adaptive_clip]
names = pytest.mark.parametrize
few = examples(max_examples=examples.default.max_examples // 2)  # a case, where there are many


def draw(seed: int, *, n: int | None = None, d: int | None = None) -> tuple[torch.Tensor, int]:
    """Random vectors and a number of malicious ones that they can bear."""
    generator = np.random.default_rng(seed)
    n = n or int(generator.integers(3, 11))
    vectors = generator.normal(size=(n, d or int(generator.integers(1, 9))))
    return torch.from_numpy(vectors), int(generator.integers(0, (n - 1) // 2 + 1))


def mix(vectors: torch.Tensor, f: int) -> torch.Tensor:
    return nearest_neighbor_mixing(vectors, num_byzantine=f)


@names(
    "rule",
    [
        trimmed_mean,
        multi_krum,
        mean_around_median,
        smea,
        caf,
        minimum_diameter,
        mean,
        nearest_neighbor_average,
        adaptive_clip,
    ],
)
@given(seed=SEEDS)
def test_without_malicious_ones_it_is_the_mean(rule, seed) -> None:  # R1
    vectors, _ = draw(seed)
    torch.testing.assert_close(rule(vectors, num_byzantine=0), vectors.mean(dim=0))


@given(seed=SEEDS)
def test_one_mix_without_malicious_ones_makes_all_equal(seed) -> None:  # R1
    vectors, _ = draw(seed)
    torch.testing.assert_close(mix(vectors, 0), vectors.mean(dim=0).expand_as(vectors))


@given(seed=SEEDS)
def test_nearest_neighbor_average_keeps_its_own(seed) -> None:  # R2
    vectors, f = draw(seed)
    n = len(vectors)
    squares = (vectors - vectors[0]).square().sum(dim=1)
    near = squares.argsort(stable=True)[: n - f]
    assert 0 in near
    average = nearest_neighbor_average(vectors, num_byzantine=f, own=0)
    torch.testing.assert_close(average, vectors[near].mean(dim=0))
    torch.testing.assert_close(mix(vectors, f)[0], average)


def test_its_own_is_kept_among_copies() -> None:  # R2
    vectors = torch.zeros(7, 2)
    vectors[6] = 1e-9
    assert nearest_neighbor_average(vectors, num_byzantine=3, own=6).sum() > 0
    assert mix(vectors, 3)[6].sum() > 0


LIES = {
    "far": lambda honest: honest.mean(0) + 1e6,
    "opposite": lambda honest: -honest.mean(0),
    "huge": lambda honest: torch.full_like(honest[0], 1e30),
    "overflow": lambda honest: torch.full_like(honest[0], 1e200),
    "largest": lambda honest: torch.full_like(honest[0], 1.7e308),
    "inf": lambda honest: torch.full_like(honest[0], torch.inf),
    "nan": lambda honest: torch.full_like(honest[0], torch.nan),
    "mixed": lambda honest: torch.tensor([torch.nan, -torch.inf] * len(honest[0]))[
        : len(honest[0])
    ].to(honest),
}


@pytest.mark.more
@names("lie", LIES)
@names("rule", EQUIVARIANT)
@few
@given(seed=SEEDS)
def test_honest_unanimity_wins(rule, lie, seed) -> None:  # R3
    vectors, f = draw(seed)
    common = vectors[-1]
    vectors[f:] = common
    vectors[:f] = LIES[lie](vectors[f:])
    own = {"own": len(vectors) - 1} if rule is nearest_neighbor_average else {}
    result = rule(vectors, num_byzantine=f, **own)
    torch.testing.assert_close(result, common, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mix(vectors, f)[f:], vectors[f:])


@pytest.mark.more
@names("lie", LIES)
@names("rule", ROBUST)
@few
@given(seed=SEEDS)
def test_influence_is_bounded(rule, lie, seed) -> None:  # R4
    """No lie, finite or not, takes the result further than the honest vectors' own scale."""
    vectors, f = draw(seed)
    vectors[:f] = LIES[lie](vectors[f:])
    honest = vectors[f:]
    own = {"own": len(vectors) - 1} if rule is nearest_neighbor_average else {}
    if rule is centered_clipping:
        own = {"radius": 1.0}
    result = rule(vectors, num_byzantine=f, **own)
    assert torch.isfinite(result).all()
    scale = float(honest.norm(dim=1).max()) + float(torch.cdist(honest, honest).max()) + 2
    # The geometric median's breakdown factor is 2 (n - f) / (n - 2 f), at most 2 n here.
    assert float(result.norm()) <= 2 * len(vectors) * scale
    mixed = mix(vectors, f)
    assert torch.isfinite(mixed).all()
    reach = torch.cdist(honest, honest).max()
    assert float((mixed[f:] - honest).norm(dim=1).max()) <= float(reach) + 1e-9


@names("rule", EQUIVARIANT)
@given(seed=SEEDS)
def test_translation_and_scale(rule, seed) -> None:  # R5
    vectors, f = draw(seed)
    shift = torch.from_numpy(np.random.default_rng(seed).normal(size=vectors.shape[1]))
    before = rule(vectors, num_byzantine=f)
    after = rule(3 * vectors + shift, num_byzantine=f)
    torch.testing.assert_close(after, 3 * before + shift, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mix(3 * vectors + shift, f), 3 * mix(vectors, f) + shift)


@names("rule", [*DISTANCES, nearest_neighbor_average, clip, adaptive_clip])
@given(seed=SEEDS)
def test_rotation(rule, seed) -> None:  # R5
    vectors, f = draw(seed)
    d = vectors.shape[1]
    turn, _ = torch.linalg.qr(torch.from_numpy(np.random.default_rng(seed).normal(size=(d, d))))
    before = rule(vectors, num_byzantine=f)
    after = rule(vectors @ turn, num_byzantine=f)
    torch.testing.assert_close(after, before @ turn, rtol=1e-6, atol=1e-6)


@names("rule", COORDINATEWISE)
@given(seed=SEEDS)
def test_scale_of_each_coordinate(rule, seed) -> None:  # R5
    vectors, f = draw(seed)
    scales = torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 9, vectors.shape[1]))
    before = rule(vectors, num_byzantine=f)
    torch.testing.assert_close(rule(vectors * scales, num_byzantine=f), before * scales)


UNORDERED = [rule for rule in DISTANCES if rule is not minimum_diameter]  # it has ties by nature


@names("rule", [*COORDINATEWISE, *UNORDERED, clip, adaptive_clip, centered_clipping])
@given(seed=SEEDS)
def test_order_does_not_matter(rule, seed) -> None:  # R5
    vectors, f = draw(seed)
    if len(vectors) - f <= 2 and rule in (krum, multi_krum, smea):
        return  # one pair of neighbors: a tie by nature
    if rule is geometric_median and (vectors.shape[1] == 1 or len(vectors) == 2):
        return  # on a line everything between the two middle ones is a median
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(vectors)))
    before = rule(vectors, num_byzantine=f)
    torch.testing.assert_close(rule(vectors[order], num_byzantine=f), before, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mix(vectors[order], f), mix(vectors, f)[order])


ATTACKS = {
    "far": lambda h: h.mean(0) + 1e4,
    "flip": lambda h: -h.mean(0),
    "foe": lambda h: 0.5 * h.mean(0),
    "mimic": lambda h: h[0],
    "alie": lambda h: h.mean(0) + 1.5 * h.std(0),
}


@names("attack", ATTACKS)
@given(seed=SEEDS)
def test_mixing_reduces_the_spread(attack, seed) -> None:  # R6
    """(alpha, lambda)-reduction with MoNNA's constants, n = 22 and f = 2: n >= 11 f."""
    honest = draw(seed, n=20, d=30)[0]
    lies = ATTACKS[attack](honest).expand(2, -1)
    mixed = mix(torch.cat([lies, honest]), 2)[2:]
    spread = (honest - honest.mean(0)).square().sum(dim=1).mean()
    after = (mixed - mixed.mean(0)).square().sum(dim=1).mean()
    shift = (mixed.mean(0) - honest.mean(0)).square().sum()
    assert after <= 9.88 * 2 / 20 * spread
    assert after < 0.5 * spread
    assert shift <= 9 * 2 / 20 * spread


KAPPA = {
    trimmed_mean: lambda n, f: 6 * f / (n - 2 * f) * (1 + f / (n - 2 * f)),
    krum: lambda n, f: 6 * (1 + f / (n - 2 * f)),
    geometric_median: lambda n, f: 4 * (1 + f / (n - 2 * f)) ** 2,
}


@pytest.mark.more
@names("attack", ATTACKS)
@names("rule", KAPPA)
@few
@given(seed=SEEDS)
def test_robustness_coefficient(rule, attack, seed) -> None:  # R6
    """|R - mean of S|^2 <= kappa times the variance of S, for S the honest and after mixing."""
    honest = draw(seed, n=8, d=6)[0]
    vectors = torch.cat([ATTACKS[attack](honest).expand(3, -1), honest])
    bound = KAPPA[rule](11, 3)
    spread = (honest - honest.mean(0)).square().sum(dim=1).mean()
    error = (rule(vectors, num_byzantine=3) - honest.mean(0)).square().sum()
    assert error <= bound * spread
    after = (rule(mix(vectors, 3), num_byzantine=3) - honest.mean(0)).square().sum()
    assert after <= 8 * 3 / 8 * (bound + 1) * spread


@given(seed=SEEDS)
def test_trimmed_mean_stays_among_the_honest(seed) -> None:  # R6
    vectors, f = draw(seed)
    vectors[:f] = 1e9
    result = trimmed_mean(vectors, num_byzantine=f)
    assert (result >= vectors[f:].min(0).values - 1e-12).all()
    assert (result <= vectors[f:].max(0).values + 1e-12).all()


@given(seed=SEEDS)
def test_one_vector_breaks_the_mean_and_not_mixing_before_it(seed) -> None:  # R7
    vectors = draw(seed, n=7)[0]
    vectors[0] = 1e12
    assert float(mean(vectors).norm()) > 1e10
    robust = parse_aggregator("nearest_neighbor_mixing | mean")
    result = robust(vectors, num_byzantine=1, generator=np.random.default_rng(0))
    # One mixed row of seven is the liar's own, an average over six others and itself.
    assert float(robust_rest(vectors).norm()) < 100
    assert torch.isfinite(result).all()


def robust_rest(vectors: torch.Tensor) -> torch.Tensor:
    return mix(vectors, 1)[1:].mean(dim=0)


@given(seed=SEEDS)
def test_smea_takes_the_subset_with_the_smallest_eigenvalue(seed) -> None:  # R9, by enumeration
    vectors, f = draw(seed, n=7)
    best = min(
        combinations(range(7), 7 - f),
        key=lambda s: np.linalg.eigvalsh(
            np.atleast_2d(np.cov(vectors[list(s)].T.numpy(), bias=True))
        )[-1],
    )
    torch.testing.assert_close(smea(vectors, num_byzantine=f), vectors[list(best)].mean(dim=0))


@given(seed=SEEDS)
def test_minimum_diameter_takes_the_tightest_subset(seed) -> None:  # R9, by enumeration
    vectors, f = draw(seed, n=9)
    distance = torch.cdist(vectors, vectors)
    best = min(
        combinations(range(9), 9 - f), key=lambda s: float(distance[list(s)][:, list(s)].max())
    )
    found = minimum_diameter(vectors, num_byzantine=f)
    torch.testing.assert_close(found, vectors[list(best)].mean(dim=0))


@given(seed=SEEDS)
def test_geometric_median_is_stationary(seed) -> None:
    vectors, _ = draw(seed, n=8, d=5)
    found = geometric_median(vectors, num_byzantine=3)
    pulls = (vectors - found) / (vectors - found).norm(dim=1, keepdim=True)
    assert float(pulls.sum(dim=0).norm()) < 1e-4


@given(seed=SEEDS, size=st.integers(1, 4))
def test_bucketing_keeps_the_mean_where_groups_are_equal(seed, size) -> None:
    vectors = draw(seed, n=3 * size)[0]
    groups = bucketing(vectors, size=size, generator=np.random.default_rng(seed))
    assert len(groups) == 3
    torch.testing.assert_close(groups.mean(dim=0), vectors.mean(dim=0))


@given(seed=SEEDS)
def test_centered_clipping_follows_from_where_it_starts(seed) -> None:
    vectors, _ = draw(seed)
    start = torch.ones_like(vectors[0])
    followed = centered_clipping(vectors, start=start, radius=0.1)
    assert float((followed - start).norm()) <= 0.1 + 1e-12
    whole = centered_clipping(vectors, start=start, radius=1e9)
    torch.testing.assert_close(whole, vectors.mean(dim=0))


@names("rule", [*ROBUST, nearest_neighbor_mixing])
def test_too_many_malicious_ones_are_refused(rule) -> None:
    with pytest.raises(
        ConfigError, match="num_byzantine=4 needs more than 8 clients, got 8; lower"
    ):
        rule(torch.zeros(8, 2), num_byzantine=4)
    with pytest.raises(ConfigError, match="num_byzantine=-1 must be 0 or more"):
        rule(torch.zeros(8, 2), num_byzantine=-1)
    with pytest.raises(ConfigError, match=r"5 of 5 vectors are not finite|own=0 is not finite"):
        rule(torch.full((5, 2), torch.nan), num_byzantine=2)


@names("rule", ROBUST)
def test_float32_and_wide_vectors_give_the_same_as_float64(rule) -> None:
    """Blocks of columns and the sorting network change nothing; inputs are left as they are."""
    vectors = torch.from_numpy(np.random.default_rng(3).normal(size=(9, 40_000)))
    vectors[:3] += 5
    own = {"own": 8} if rule is nearest_neighbor_average else {}
    exact = rule(vectors, num_byzantine=3, **own)
    single = vectors.float()
    found = rule(single, num_byzantine=3, **own)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)
    assert torch.equal(single, vectors.float())


def test_public_names() -> None:
    wanted = (
        "mean median trimmed_mean geometric_median krum multi_krum centered_clipping"
        " mean_around_median minimum_diameter smea caf nearest_neighbor_average"
        " nearest_neighbor_mixing bucketing clip adaptive_clip"
    )
    assert set(wanted.split()) <= set(aggregation.__all__)

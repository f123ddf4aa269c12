"""Compositions of rules as texts."""

import numpy as np
import pytest
import torch

from fedzo.aggregation import (
    AGGREGATORS,
    MIXERS,
    bucketing,
    nearest_neighbor_mixing,
    parse_aggregator,
    trimmed_mean,
)
from fedzo.aggregation.distances import distances_between, squared_distances
from fedzo.errors import ConfigError
from fedzo.randomness import stream


def vectors(n: int = 9) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, 4)))


def generator() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize("mixing", ["nnm", "nearest_neighbor_mixing"])
def test_stages_run_from_left_to_right(mixing: str) -> None:
    found = parse_aggregator(f"{mixing} | trimmed_mean")(
        vectors(), num_byzantine=2, generator=generator()
    )
    expected = trimmed_mean(nearest_neighbor_mixing(vectors(), num_byzantine=2), num_byzantine=2)
    assert torch.equal(found, expected)


def test_three_stages_with_options() -> None:
    found = parse_aggregator("bucketing(size=3) | nnm | trimmed_mean")(
        vectors(), num_byzantine=1, generator=generator()
    )
    groups = bucketing(vectors(), num_byzantine=1, size=3, generator=generator())
    mixed = nearest_neighbor_mixing(groups, num_byzantine=1)
    assert torch.equal(found, trimmed_mean(mixed, num_byzantine=1))


@pytest.mark.parametrize("last", AGGREGATORS)
@pytest.mark.parametrize("first", [None, *MIXERS])
def test_every_pair_runs(first: str | None, last: str) -> None:
    text = last if first is None else f"{first} | {last}"
    f = 0 if last == "mean" and first in (None, "bucketing") else 1
    result = parse_aggregator(text)(
        vectors(), num_byzantine=f, generator=generator(), start=torch.zeros(4).double()
    )
    assert result.shape == (4,)
    assert torch.isfinite(result).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trimed_mean", "did you mean trimmed_mean"),
        ("nearest_neighbor_mixing", "add a rule after it"),
        ("median | trimmed_mean", "must be the last"),
        ("trimmed_mean(3)", "is not a rule"),
        ("krum(neighbours='original')", "did you mean krum.neighbors"),
        ("krum(neighbors='both')", "krum(neighbors='both') is not allowed"),
        ("clip(radius=-1)", "clip: radius=-1.0 must be positive"),
        ("clip(radius='x')", "clip(radius='x') is not allowed"),
        ("bucketing(size=True) | median", "size=True) is not allowed"),
        ("nearest_neighbor_average(own=1.5)", "own=1.5) is not allowed"),
        ("multi_krum(num_selected=3.0)", "num_selected=3.0) is not allowed"),
        ("clip(radius=2.0, radius=3.0)", "is not a rule"),
        ("clip(radius=f)", "is not a rule"),
        ("__import__('os')", "is not a rule"),
        ("", "is not a rule"),
        ("median |", "is not a rule"),
        ("median + krum", "is not a rule"),
    ],
)
def test_what_is_no_rule_is_explained(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_aggregator(text)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "n", "f", "words"),
    [
        ("trimmed_mean", 8, 4, "num_byzantine=4 needs more than 8 clients, got 8"),
        ("bucketing(size=3) | median", 9, 2, "needs more than 4 clients, got 3"),
        ("krum(neighbors='original')", 8, 3, "needs more than 8 clients, got 8"),
        ("multi_krum(num_selected=9)", 8, 3, "multi_krum.num_selected=9 must be at most 8 here"),
        ("nearest_neighbor_average(own=8)", 8, 3, "own=8 must be at most 7 here"),
        ("smea", 60, 20, "use caf"),
        ("mean", 9, 1, "a mean withstands nobody"),
        ("bucketing | mean", 9, 1, "a mean withstands nobody"),
    ],
)
def test_what_is_impossible_is_refused(text: str, n: int, f: int, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_aggregator(text).require(n, f)
    assert words in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in AGGREGATORS if name != "centered_clipping"])
def test_half_precision_is_aggregated_in_float32(name: str, dtype: torch.dtype) -> None:
    """Squares of 300 are no number in float16."""
    grid = torch.linspace(250, 350, 9 * 5, dtype=torch.float64).reshape(9, 5).to(dtype)
    grid[3] += 8
    rule, f = parse_aggregator(name), 0 if name == "mean" else 2
    made = [rule(v, num_byzantine=f, generator=stream(0, "a")) for v in (grid, grid.float())]
    assert torch.equal(*made)


@pytest.mark.parametrize("text", ["adaptive_clip | trimmed_mean", "clip(radius=9.0) | median"])
def test_liars_who_send_no_numbers_are_not_counted_twice(text: str) -> None:
    given = vectors(5)
    given[1], given[3] = torch.inf, torch.nan
    found = parse_aggregator(text)(given, num_byzantine=2, generator=generator())
    assert bool(found.isfinite().all())
    assert bool(((given[::2].amin(0) <= found) & (found <= given[::2].amax(0))).all())
    one = given[:4]
    with pytest.raises(ConfigError, match="num_byzantine=1 may be"):
        parse_aggregator(text)(one, num_byzantine=1, generator=generator())


@pytest.mark.parametrize("seed", range(5))
def test_a_liar_beyond_zero_hides_no_other_in_rounding(seed: int) -> None:
    """Its vector has the median norm, so differences of the others were those of large numbers."""
    random = torch.Generator().manual_seed(seed)
    middle = torch.randn(50, generator=random, dtype=torch.float64)
    honest = middle + 3e-5 * torch.randn(9, 50, generator=random, dtype=torch.float64)
    aside = torch.randn(50, generator=random, dtype=torch.float64)
    near = middle + 2e-3 * aside / aside.norm()
    norms = torch.cat([honest, near[None]]).norm(dim=1).sort().values
    far = -middle / middle.norm() * norms[4:6].mean()
    given = torch.cat([far[None], near[None], honest]).float()
    for text in ("krum", "multi_krum", "nnm | trimmed_mean", "minimum_diameter"):
        rule = parse_aggregator(text)
        found = rule(given, num_byzantine=2, generator=generator()).double()
        exact = rule(given.double(), num_byzantine=2, generator=generator())
        assert float((found - exact).norm()) < 1e-5, text
    exact = torch.cdist(given.double(), given.double()).square()
    for squares in (squared_distances(given), distances_between(given, given)):
        among = (squares - exact)[2:, 2:].abs().max()
        assert float(among) < 1e-4 * float(exact[2:, 2:].max())

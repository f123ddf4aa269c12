"""Keyed draws: published words, laws of blocks, laws of numbers, and bits that libraries share."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedzo.errors import ConfigError
from fedzo.estimation import laws
from fedzo.estimation.keys import Key
from fedzo.estimation.philox import philox

LAWS = ["gaussian", "rademacher"]
ONES = (1 << 32) - 1
KNOWN = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((ONES,) * 4, (ONES, ONES), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]
"""Counters, keys and words of philox4x32 with ten rounds in Random123's kat_vectors."""
FAR = (1 << 40) + 3


def plain_philox(
    counter: list[int], key: list[int], *, bits: int, multipliers: list[int], weyl: list[int]
) -> list[int]:
    """Return four words of Philox 4 x bits with ten rounds, in Python's integers."""
    low = (1 << bits) - 1
    for _ in range(10):
        p = [m * c for m, c in zip(multipliers, counter[::2], strict=True)]
        counter = [
            p[1] >> bits ^ counter[1] ^ key[0],
            p[1] & low,
            p[0] >> bits ^ counter[3] ^ key[1],
            p[0] & low,
        ]
        key = [k + w & low for k, w in zip(key, weyl, strict=True)]
    return counter


def plain32(counter: list[int], key: list[int]) -> list[int]:
    multipliers, weyl = [0xD2511F53, 0xCD9E8D57], [0x9E3779B9, 0xBB67AE85]
    return plain_philox(counter, key, bits=32, multipliers=multipliers, weyl=weyl)


def unsigned(words: torch.Tensor) -> list[int]:
    return [int(word) & ONES for word in words.flatten()]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_published_words(counter: tuple[int, ...], key: tuple[int, int], words: str) -> None:
    first = counter[0] | counter[1] << 32
    first -= (first >> 63) << 64
    drawn = philox(key, (counter[2], counter[3]), first, 1)
    assert " ".join(f"{word:08x}" for word in unsigned(drawn)) == words


@given(key=st.integers(0, (1 << 128) - 1), place=st.integers(1, (1 << 64) - 2))
def test_the_plain_philox_is_numpys_in_64_bits(key: int, place: int) -> None:
    """numpy has the generator in the width of 64 bits, and counts before it draws."""
    low = (1 << 64) - 1
    theirs = np.random.Philox(key=key, counter=place - 1).random_raw(4).tolist()
    ours = plain_philox(
        [place, 0, 0, 0],
        [key & low, key >> 64],
        bits=64,
        multipliers=[0xD2E7470EE14C6C93, 0xCA5A826395121157],
        weyl=[0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B],
    )
    assert ours == theirs


@given(
    key=st.tuples(st.integers(0, ONES), st.integers(0, ONES)),
    upper=st.tuples(st.integers(0, ONES), st.integers(0, ONES)),
    first=st.integers(0, (1 << 62)),
)
def test_words_are_those_of_the_plain_philox(
    key: tuple[int, int], upper: tuple[int, int], first: int
) -> None:
    drawn = philox(key, upper, first, 3)
    for number in range(3):
        low, high = first + number & ONES, first + number >> 32
        expected = plain32([low, high, *upper], list(key))
        assert unsigned(drawn[:, number]) == expected


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("start", [0, FAR])
@given(cuts=st.lists(st.integers(0, 700), max_size=5), direction=st.integers(0, (1 << 64) - 1))
def test_blocks_have_the_bits_of_the_whole(
    law: str, start: int, cuts: list[int], direction: int
) -> None:
    key = Key(seed=3, parts=("u", 1), law=law, direction=direction)
    whole = key.draw(start, start + 700)
    edges = [0, *sorted(cuts), 700]
    parts = [key.draw(start + low, start + high) for low, high in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)
    words = [key.words(start + low, start + high) for low, high in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(words), key.words(start, start + 700))


@pytest.mark.parametrize("law", LAWS)
def test_a_long_draw_is_made_of_the_same_blocks(law: str) -> None:
    """Longer than what is drawn at once, from an odd place on."""
    key = Key(seed=0, law=law)
    length = 1_200_000 if law == "rademacher" else 140_000
    whole = key.draw(37, 37 + length)
    assert torch.equal(whole[-5000:], key.draw(37 + length - 5000, 37 + length))
    assert torch.equal(whole[:200], key.draw(37, 237))


@pytest.mark.parametrize("law", LAWS)
def test_other_keys_give_other_directions(law: str) -> None:
    base = Key(seed=0, parts=("u", 1), law=law)
    others = [
        base,
        Key(seed=1, parts=("u", 1), law=law),
        Key(seed=0, parts=("u", 2), law=law),
        Key(seed=0, parts=("u", 1, 0), law=law),
        base.at(1),
        base.at(1 << 32),
    ]
    drawn = torch.stack([key.draw(0, 4000) for key in others]).double()
    correlations = drawn @ drawn.T / 4000 - torch.eye(6)
    assert float(correlations.abs().max()) < 5 * (2 / 4000) ** 0.5
    assert torch.equal(base.draw(0, 50), Key(seed=0, parts=("u", 1), law=law).draw(0, 50))


@pytest.mark.parametrize("law", LAWS)
def test_moments_within_five_standard_errors(law: str) -> None:
    n = 400_000
    u = Key(seed=5, parts=("moments",), law=law).draw(0, n).double()
    variances = {"gaussian": (1, 2, 15, 96), "rademacher": (1, 0, 1, 0)}[law]
    fourth = 3.0 if law == "gaussian" else 1.0
    for power, mean, variance in zip((1, 2, 3, 4), (0, 1, 0, fourth), variances, strict=True):
        assert abs(float((u**power).mean()) - mean) <= 5 * (variance / n) ** 0.5
    for lag in (1, 2, 3, 4, 128):
        assert abs(float((u[lag:] * u[:-lag]).mean())) <= 5 * (1 / n) ** 0.5
    assert float((u == 0).sum()) == 0


def test_normals_follow_the_normal_distribution_in_all_quarters() -> None:
    """By chi squared of 100 equal classes, for each of the four lanes."""
    u = Key(seed=6, law="gaussian").draw(0, 400_000).double().reshape(-1, 4)
    classes = (torch.special.ndtr(u) * 100).long().clamp(0, 99)
    for lane in classes.T:
        counts = torch.bincount(lane, minlength=100).double()
        chi = float(((counts - 1000) ** 2 / 1000).sum())
        assert abs(chi - 99) <= 5 * (2 * 99) ** 0.5


def test_signs_are_the_bits_of_the_words() -> None:
    key = Key(seed=2, law="rademacher")
    words = unsigned(key.words(0, 8))
    expected = [2 * (words[i // 32] >> i % 32 & 1) - 1 for i in range(256)]
    assert key.draw(0, 256).tolist() == expected


def numpy_normals(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Return what laws.normals makes of pairs of words [n, 2], by numpy's float32."""
    one = np.float32

    def polynomial(coefficients: tuple[float, ...], x: NDArray[np.float32]) -> NDArray[np.float32]:
        total = x * one(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            total = total + one(c)
            total = total * x if c is not coefficients[0] else total
        return total

    a = (words[:, 0] & np.uint32(0x7FFFFFFF)).astype(one) + one(0.5)
    bits = a.view(np.int32)
    exponent = bits - np.int32(0x3F3504F3) >> np.int32(23)
    f = (bits - (exponent << np.int32(23))).view(one) - one(1)
    minus_log = (np.int32(31) - exponent).astype(one) * one(np.log(2))
    radius = np.sqrt(minus_log - polynomial(laws._LOG, f) * f)
    t = (words[:, 1] << np.uint32(2)).view(np.int32).astype(one) * one(2.0**-31)
    square = t * t
    cosine, sine = polynomial(laws._COS, square), polynomial(laws._SIN, square) * t
    parts = [(cosine - sine) * radius, (cosine + sine) * radius]
    flips = [words[:, 1] >> np.uint32(31 - place) & np.uint32(1) for place in (0, 1)]
    signed = [np.where(flip == 1, -part, part) for part, flip in zip(parts, flips, strict=True)]
    return np.stack(signed, axis=1).ravel()


def words_of(key: Key, n: int) -> NDArray[np.uint32]:
    return key.words(0, n).numpy().view(np.uint32).reshape(-1, 2)


def test_normals_have_the_bits_of_another_library() -> None:
    """Only operations that IEEE 754 rounds correctly take part: 0 ulps between processors."""
    key = Key(seed=8, law="gaussian")
    ours = key.draw(0, 40_000).numpy()
    assert np.array_equal(ours.view(np.int32), numpy_normals(words_of(key, 40_000)).view(np.int32))


def test_normals_are_those_of_box_and_muller() -> None:
    words = words_of(Key(seed=9, law="gaussian"), 40_000)
    low = (words[:, 0] & np.uint32(0x7FFFFFFF)).astype(np.float32) + np.float32(0.5)
    radius = np.sqrt(-2 * np.log(low.astype(np.float64) / 2**31))
    t = (words[:, 1] << np.uint32(2)).view(np.int32) / 2**31
    angle = np.pi / 4 * (t + 1)
    signs = 1 - 2.0 * (words[:, 1:] >> np.uint32([31, 30]) & np.uint32(1))
    exact = (signs * np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]).ravel()
    ours = Key(seed=9, law="gaussian").draw(0, 40_000).double().numpy()
    assert np.abs(ours - exact).max() < 2e-6


def test_extreme_words_give_finite_normals() -> None:
    edge = torch.tensor([0, -1, 1 << 30, -(1 << 31), (1 << 31) - 1, 1], dtype=torch.int32)
    grid = torch.cartesian_prod(edge, edge).T
    z = laws.normals(torch.cat([grid, grid]))
    assert bool(z.isfinite().all())
    assert float(z.abs().max()) < 6.71


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_types_hold_the_same_numbers(law: str, dtype: torch.dtype) -> None:
    key = Key(seed=4, law=law)
    drawn = key.draw(5, 1005, dtype=dtype)
    assert drawn.dtype == dtype
    assert torch.equal(drawn, key.draw(5, 1005).to(dtype))


@pytest.mark.parametrize("law", LAWS)
def test_numbers_are_made_where_they_are_wanted(law: str) -> None:
    """Nothing is made on the CPU for another device."""
    key = Key(seed=4, law=law)
    assert key.draw(3, 5000, device="meta").device.type == "meta"
    assert key.words(3, 500, device="meta").device.type == "meta"


def test_the_global_generators_are_left_alone() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    Key(seed=0, law="gaussian").draw(0, 1000)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_recorded_bits() -> None:
    """What a key means may never change: logs of keys and coefficients are replayed."""
    normal = Key(seed=1, parts=("directions", 2), law="gaussian", direction=3)
    assert normal.draw(FAR, FAR + 3).view(torch.int32).tolist() == [
        1063092474,
        -1090206704,
        -1079374218,
    ]
    sign = Key(seed=1, parts=("directions", 2), law="rademacher", direction=3)
    assert sign.draw(FAR, FAR + 8).tolist() == [1, -1, -1, -1, 1, -1, -1, 1]


def test_what_is_no_key() -> None:
    with pytest.raises(ConfigError, match="direction"):
        Key(seed=0, direction=-1)

"""Laws of every compressor: sizes, what decodes, what stays, unbiasedness."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedzo.compression.blocks import pack, unpack
from fedzo.compression.scheme import Scheme, scheme_of
from fedzo.errors import MessageError
from fedzo.randomness import stream

NEAREST = [
    Scheme(name)  # type: ignore[arg-type]
    for name in ("bfloat16", "float16", "int8", "int4", "int2", "sign", "top_k")
]
ALL = [*NEAREST, *(Scheme(f"int{bits}", rounding="stochastic") for bits in (8, 4, 2))]  # type: ignore[arg-type]
IDS = [f"{scheme.method} {scheme.rounding}" for scheme in ALL]


def vectors(n: int, dim: int, *, seed: int = 0) -> Tensor:
    return torch.from_numpy(stream(seed, "vectors", n, dim).standard_normal((n, dim))).float()


def coded(scheme: Scheme, rows: Tensor, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    uniforms = None
    if scheme.compressor.draws:
        uniforms = torch.from_numpy(stream(seed, "uniforms").random(tuple(rows.shape)))
    parts = scheme.compressor.encode(rows, uniforms)
    return parts, scheme.compressor.decode(parts, rows.shape[1])


@pytest.mark.parametrize("scheme", ALL, ids=IDS)
@pytest.mark.parametrize("dim", [1, 7, 64, 300, 4097, 70_000])
def test_tensors_have_the_forms_that_are_said(scheme: Scheme, dim: int) -> None:
    parts, decoded = coded(scheme, vectors(3, dim))
    forms = {name: (tuple(t.shape[1:]), t.dtype) for name, t in parts.items()}
    assert forms == dict(scheme.compressor.forms(dim))
    assert decoded.shape == (3, dim)
    assert decoded.dtype == torch.float32
    assert bool(scheme.compressor.sound(parts, dim).all())


@pytest.mark.parametrize("scheme", ALL, ids=IDS)
def test_rows_do_not_depend_on_each_other(scheme: Scheme) -> None:
    rows = vectors(5, 300)
    uniforms = torch.from_numpy(stream(0, "uniforms").random((5, 300)))
    drawn = uniforms if scheme.compressor.draws else None
    parts = scheme.compressor.encode(rows, drawn)
    for i in range(5):
        row = None if drawn is None else drawn[i : i + 1]
        alone = scheme.compressor.encode(rows[i : i + 1], row)
        assert all(torch.equal(alone[name][0], tensor[i]) for name, tensor in parts.items())


@pytest.mark.parametrize("scheme", NEAREST, ids=lambda scheme: scheme.method)
def test_what_decodes_stays_as_it_is(scheme: Scheme) -> None:
    _, once = coded(scheme, vectors(2, 300))
    _, twice = coded(scheme, once)
    torch.testing.assert_close(twice, once, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("method", "expected"),
    [("int4", 14_317), ("int2", 7_955), ("sign", 3_210), ("top_k", 1_016), ("bfloat16", 50_900)],
)
def test_bytes_of_a_network(method: str, expected: int) -> None:
    """The MLP of 25,450 numbers: 101,800 bytes whole."""
    forms = Scheme(method).compressor.forms(25_450)  # type: ignore[arg-type]
    sizes = [torch.empty(shape, dtype=dtype) for shape, dtype in forms.values()]
    assert sum(t.numel() * t.element_size() for t in sizes) == expected


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_nearest_is_within_half_a_step(bits: int) -> None:
    rows = vectors(4, 256)
    parts, decoded = coded(Scheme(f"int{bits}"), rows)  # type: ignore[arg-type]
    steps = parts["steps"].repeat_interleave(64, dim=1)
    assert bool(((rows - decoded).abs() <= steps / 2 * (1 + 1e-5)).all())


@pytest.mark.parametrize("bits", [2, 4])
def test_stochastic_rounding_is_unbiased(bits: int) -> None:
    scheme, row = Scheme(f"int{bits}", rounding="stochastic"), vectors(1, 64)  # type: ignore[arg-type]
    times = 20_000
    parts, decoded = coded(scheme, row.expand(times, 64))
    error = (decoded.double().mean(0) - row[0]).abs()
    assert bool((error < 5 * float(parts["steps"][0, 0]) / 2 / times**0.5).all())


def test_signs_keep_the_mean_size_of_a_block() -> None:
    rows = vectors(2, 5000)
    _, decoded = coded(Scheme("sign"), rows)
    assert torch.equal(decoded.sign(), rows.sign())
    torch.testing.assert_close(decoded[:, :4096].abs().mean(1), rows[:, :4096].abs().mean(1))
    torch.testing.assert_close(decoded[:, 4096:].abs().mean(1), rows[:, 4096:].abs().mean(1))


def test_top_k_keeps_the_largest() -> None:
    rows = vectors(3, 1000)
    _, decoded = coded(Scheme("top_k", fraction=0.05), rows)
    for row, kept in zip(rows, decoded, strict=True):
        places = kept.nonzero().flatten()
        assert len(places) == 50
        rest = row.clone()
        rest[places] = 0
        assert float(rest.abs().max()) <= float(row[places].abs().min())
        torch.testing.assert_close(kept[places], row[places], rtol=2**-8, atol=0)


def test_places_beyond_the_vector_or_told_twice_are_not_sound() -> None:
    compressor = Scheme("top_k", fraction=0.1).compressor
    parts, _ = coded(Scheme("top_k", fraction=0.1), vectors(3, 50))
    parts["places"][0, -1] = 50 - (1 << 15)
    parts["places"][1, 1] = parts["places"][1, 0]
    assert compressor.sound(parts, 50).tolist() == [False, False, True]


@pytest.mark.parametrize("scheme", ALL, ids=IDS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so(scheme: Scheme, wrong: float) -> None:
    rows = vectors(2, 100)
    rows[0, 3] = wrong
    _, decoded = coded(scheme, rows)
    assert not bool(decoded[0].isfinite().all())
    assert bool(decoded[1].isfinite().all())


@pytest.mark.parametrize("scheme", ALL, ids=IDS)
def test_nothing_becomes_nothing(scheme: Scheme) -> None:
    _, decoded = coded(scheme, torch.zeros(2, 70))
    assert torch.equal(decoded, torch.zeros(2, 70))


@pytest.mark.parametrize("scheme", ALL, ids=IDS)
def test_both_ends_have_the_same_bits_whatever_the_type(scheme: Scheme) -> None:
    rows = vectors(2, 300)
    _, single = coded(scheme, rows)
    _, double = coded(scheme, rows.double())
    torch.testing.assert_close(single, double, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scheme", ALL, ids=IDS)
def test_nothing_is_lost_between_what_is_sent_and_what_is_kept(scheme: Scheme) -> None:
    """For float32 vectors the residual in float64 is exact: x = sent + residual, bit for bit."""
    rows = vectors(3, 500)
    _, decoded = coded(scheme, rows)
    left = rows.double() - decoded.double()
    assert torch.equal(decoded.double() + left, rows.double())


@given(st.integers(1, 40), st.sampled_from([1, 2, 4, 8]), st.integers(0, 100))
def test_codes_are_unpacked_as_they_were(dim: int, bits: int, seed: int) -> None:
    codes = torch.from_numpy(stream(seed, "codes").integers(0, 1 << bits, (3, dim))).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (3, -(-dim * bits // 8))
    assert torch.equal(unpack(packed, bits, dim), codes)


@pytest.mark.parametrize("scheme", ALL, ids=IDS)
def test_a_scheme_travels_as_a_word(scheme: Scheme) -> None:
    assert scheme_of(scheme.text()) == scheme


@pytest.mark.parametrize(
    "text", ["", "gzip:nearest:0:0.01:1:full", "int4:up:0:0.01:1:full", "top_k:nearest:0:2:1:full"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(MessageError, match="no compressor is called"):
        scheme_of(text)

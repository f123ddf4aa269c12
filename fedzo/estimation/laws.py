"""Random words become numbers of a law, with the same bits on every device.

    Rademacher   -1 or 1 for each bit                                            128 from 4 words
    Gaussian     z = +-sqrt(-ln u) (cos t -+ sin t),  t uniform in [-pi/4, pi/4]   4 from 4 words

The second is Box & Muller, "A Note on the Generation of Random Normal Deviates", Annals of
Mathematical Statistics 1958, in the first quadrant, with two signs: sqrt(2) cos(t + pi/4) is
cos t - sin t. u takes 31 bits of a word, t and the signs the 32 of the next.

Normals are float32 numbers by definition. They are made of additions, multiplications, roots and
integer operations, one at a time and rounded to nearest, on which processors and libraries agree in
every bit (0 ulps), as they do not on log and cos. The polynomials, of Chebyshev fits, are within
2e-7 of the logarithm, relatively, and 3e-8 of sine and cosine, so a normal is within 2e-6 of Box
and Muller's number for the same u in float32. |z| <= 6.7. Shapes: words [4, n], normals [4 n],
signs [128 n].
"""

import functools
import math

import torch
from jaxtyping import Float32, Int8, Int32, Int64
from torch import Tensor

_LOG = (
    0.999999942542672, -0.5000036309272977, 0.3333511414034667, -0.24970071685055437,
    0.19898565048241512, -0.17247013303883577, 0.162341897991326, -0.10134056750854689,
)  # fmt: skip
"""ln(1 + f) / f in powers of f, for 1 + f in [sqrt(1/2), sqrt(2)]."""
_COS = (0.9999999723759495, -0.30842425270900803, 0.01584991298202919, -0.0003188789916745845)
"""cos(pi/4 t) in powers of t^2, for t in [-1, 1]."""
_SIN = (0.7853981609800136, -0.08074543476917771, 0.0024900069643175675, -3.595439925734095e-05)
"""sin(pi/4 t) / t in powers of t^2, for t in [-1, 1]."""
_SQRT_HALF = 0x3F3504F3
"""The bits of sqrt(1/2) in float32."""
_SIGN = -(1 << 31)


def signs(words: Int32[Tensor, "4 n"]) -> Int8[Tensor, " k"]:
    """Return a sign for each bit, the lowest bit of a word first."""
    octets = words.T.contiguous().view(torch.uint8).reshape(-1)
    return eights_of_signs(words.device).index_select(0, octets.int()).view(torch.int8)


@functools.lru_cache(maxsize=8)
def eights_of_signs(device: torch.device) -> Int64[Tensor, " 256"]:
    """Return the eight signs, as bytes, that the bits of each byte stand for, the lowest first."""
    numbers = torch.arange(256, device=device).unsqueeze(1)
    bits = numbers >> torch.arange(8, device=device) & 1
    return (2 * bits - 1).to(torch.int8).view(torch.int64).squeeze(1)


def normals(words: Int32[Tensor, "4 n"]) -> Float32[Tensor, " k"]:
    """Return a standard normal for each word."""
    radius = _rounded_sqrt(_minus_log(words[0::2]))
    turns = words[1::2]
    t = (turns * 4).float().mul_(2.0**-31)
    square = t * t
    cosine, sine = _polynomial(_COS, square), _polynomial(_SIN, square).mul_(t)
    result = torch.empty(words.shape[1], 2, 2, device=words.device)
    for place, part in enumerate((cosine - sine, cosine.add_(sine))):
        sign = (turns * (1 + place)).bitwise_and_(_SIGN)
        part.mul_(radius).view(torch.int32).bitwise_xor_(sign)
        result[:, :, place] = part.T
    return result.reshape(-1)


def _minus_log(words: Int32[Tensor, "2 n"]) -> Float32[Tensor, "2 n"]:
    """Return -ln u of u = (w + 1/2) / 2^31, w the low 31 bits."""
    bits = (words & 0x7FFFFFFF).float().add_(0.5).view(torch.int32)
    exponent = (bits - _SQRT_HALF).bitwise_right_shift_(23)
    f = bits.sub_(exponent * (1 << 23)).view(torch.float32).sub_(1.0)
    result = exponent.neg_().add_(31).float().mul_(math.log(2))
    return result.sub_(_polynomial(_LOG, f).mul_(f))


def _rounded_sqrt(x: Float32[Tensor, "2 n"]) -> Float32[Tensor, "2 n"]:
    """Return the float32 that is nearest to the square root.

    Libraries miss it for one number in 200 (MKL, in float32). In float64 they may err by two units
    in the last place, 2^-51, while the root of a number of 24 bits is at least 2^-50 from where
    rounding to 24 bits changes.
    """
    return x.double().sqrt_().float()


def _polynomial(
    coefficients: tuple[float, ...], x: Float32[Tensor, "2 n"]
) -> Float32[Tensor, "2 n"]:
    """Return sum_i c_i x^i by Horner's rule, every operation rounded: no fused multiply-add."""
    total = x * coefficients[-1]
    for c in reversed(coefficients[1:-1]):
        total.add_(c).mul_(x)
    return total.add_(coefficients[0])

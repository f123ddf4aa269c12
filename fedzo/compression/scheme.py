"""How a vector travels: the compressor, by name and settings, and what becomes of its error."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.compression.cast import Cast
from fedzo.compression.compressor import Compressor
from fedzo.compression.integer import Integer, Rounding
from fedzo.compression.sign import Sign
from fedzo.compression.top_k import TopK
from fedzo.errors import MessageError

Method = Literal["bfloat16", "float16", "int8", "int4", "int2", "sign", "top_k"]
Residual = Literal["full", "int4"]
INTEGERS = ("int8", "int4", "int2")
BLOCKS: Mapping[str, int] = {**dict.fromkeys(INTEGERS, 64), "sign": 4096}
"""Numbers that share a scale, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """A compressor's name and settings, which travel with the question.

    block: 0 is the method's own. feedback: whether the sender adds to a vector what was lost of the
    ones before; residual: how it keeps that.
    """

    method: Method
    rounding: Rounding = "nearest"
    block: int = 0
    fraction: float = 0.01
    feedback: bool = True
    residual: Residual = "full"

    @property
    def compressor(self) -> Compressor:
        """The compressor of these settings."""
        return _made(self.method, self.rounding, self.block, self.fraction)

    def text(self) -> str:
        """Return the scheme as a word for a message."""
        numbers = f"{self.block}:{self.fraction!r}:{int(self.feedback)}"
        return f"{self.method}:{self.rounding}:{numbers}:{self.residual}"


def scheme_of(text: str) -> Scheme:
    """Return the scheme of a word; raises MessageError for any other word."""
    try:
        method, rounding, block, fraction, feedback, residual = text.split(":")
        if feedback not in ("0", "1") or not (block.isdecimal() and len(block) < 12):
            raise ValueError(text)
        scheme = Scheme(
            method,  # type: ignore[arg-type]
            rounding,  # type: ignore[arg-type]
            int(block),
            float(fraction),
            bool(int(feedback)),
            residual,  # type: ignore[arg-type]
        )
        known = rounding in ("nearest", "stochastic") and residual in ("full", "int4")
        if not known or scheme.block < 0 or not 0 < scheme.fraction <= 1:
            raise ValueError(text)
        _made(method, scheme.rounding, scheme.block, scheme.fraction)
    except ValueError as error:
        raise MessageError(f"no compressor is called {text!r:.60}") from error
    return scheme


def pressed(
    scheme: Scheme, rows: Float[Tensor, "n d"], generator: np.random.Generator
) -> Float[Tensor, "n d"]:
    """Return vectors as they would arrive, without feedback."""
    compressor = scheme.compressor
    uniforms = torch.from_numpy(generator.random(rows.shape)) if compressor.draws else None
    return compressor.decode(compressor.encode(rows, uniforms), rows.shape[1]).to(rows)


@lru_cache(maxsize=32)
def _made(method: str, rounding: Rounding, block: int, fraction: float) -> Compressor:
    if method in INTEGERS:
        return Integer(int(method.removeprefix("int")), rounding, block or BLOCKS[method])
    if method == "sign":
        return Sign(block or BLOCKS[method])
    if method == "top_k":
        return TopK(fraction)
    if method in ("bfloat16", "float16"):
        return Cast(getattr(torch, method))
    raise ValueError(method)

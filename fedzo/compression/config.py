"""Settings of compressed messages."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from fedzo.compression.integer import Rounding
from fedzo.compression.scheme import INTEGERS, Method, Residual, Scheme
from fedzo.config import check_types, require
from fedzo.used_with import UsedWith, any_of, one_of, other_than

Sent = Literal["none", Method]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionConfig:
    """What becomes of vectors on their way; without any of it they travel whole.

    up: of clients' updates and gradients; down: of x, as the change since what a client has. Casts
    to two bytes, whole numbers of 8, 4 or 2 bits, signs, or the largest numbers alone. rounding: of
    whole numbers. block: numbers that share a scale, 0 is 64 for whole numbers and 4096 for signs.
    fraction: of the numbers that top_k keeps. error_feedback: whether a client adds to what it
    sends what was lost before; residual: whether it keeps that whole, in float64, or in 4 bits.
    What is lost on the way down is always sent later: the server knows what clients have. With
    down=top_k they lag behind: shrink local rates with the fraction.
    """

    up: Sent = "none"
    down: Sent = "none"
    rounding: Rounding = "nearest"
    block: int = 0
    fraction: float = 0.01
    error_feedback: bool = True
    residual: Residual = "full"
    USED_WITH: ClassVar[UsedWith] = {
        "up": one_of(
            "rule", "first_order", "zeroth_order", "momentum", "surrogate", "anchor", "gradient",
            "own",
        ),
        "down": one_of(
            "rule", "first_order", "zeroth_order", "momentum", "surrogate", "anchor", "gradient",
            "probes", "own",
        ),
        "rounding": any_of(one_of("up", *INTEGERS), one_of("down", *INTEGERS)),
        "block": any_of(one_of("up", *INTEGERS, "sign"), one_of("down", *INTEGERS, "sign")),
        "fraction": any_of(one_of("up", "top_k"), one_of("down", "top_k")),
        "error_feedback": other_than("up", "none"),
        "residual": (other_than("up", "none"), one_of("error_feedback", True)),
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_types(self)
        require(self.block >= 0, "block", self.block, "0 (the method's own) or more")
        require(0 < self.fraction <= 1, "fraction", self.fraction, "above 0, at most 1")

    @property
    def up_scheme(self) -> Scheme | None:
        """How vectors go up, None as they are."""
        return self._scheme(self.up)

    @property
    def down_scheme(self) -> Scheme | None:
        """How x goes down, None as it is."""
        return self._scheme(self.down)

    def _scheme(self, method: Sent) -> Scheme | None:
        if method == "none":
            return None
        return Scheme(
            method,
            rounding=self.rounding,
            block=self.block,
            fraction=self.fraction,
            feedback=self.error_feedback,
            residual=self.residual,
        )

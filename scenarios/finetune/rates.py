"""Rates of steps that are suggested to who names none: a start that moves, and does not diverge.

Steps along an estimate of the gradient are as noisy as there are numbers d, so what they bear falls
as 1/d; steps of a size of their own bear the same on every network; those of Adam, that learn from
exact or nearly exact gradients, are made smaller on large networks, which were trained before. The
numbers are the least of the rates found on `digits_cnn` (d = 610), `digits_transformer` (17,962)
and `shifted_digits` (52,650), of `deepzero` a tenth of it, as docs/results/finetune.md has them, so
others may be faster.
"""

import math

OWN_SIZE = {
    "zo_adam": 3e-3,
    "zo_sign": 3e-3,
    "fzoo": 3e-2,
    "zo_muon": 9e-2,
    "deepzero": 0.03,
    "cge": 1e-2,
    "zoodip": 3e-3,
    "rank_sgd": 3e-2,
    "consensus": 3e-3,
    "evolution": 0.1,
    "relizo": 3.0,
    "gp": 3.0,
}
"""Of methods whose steps do not grow with the noise of the gradient."""
TIMES_NUMBERS = {"zo_momentum": 0.6, "sparse_mezo": 18.0, "mezo_svrg": 18.0}
"""Rate times d of the others, where it is not `_USUAL`."""
_USUAL = 6.0
_LARGEST = 1e-2
_BY_GRADIENTS, _LARGE = 1e-3, 50_000
_OF_SCALES, _LEVELS = 3e-5, 7
"""Of the scales of weights of 4 bits, which have so many levels on either side of 0."""


def suggested_lr(method: str, numbers: int, *, by_gradients: bool, bits: int = 0) -> float:
    """Return a rate for a method on a network of which so many numbers are trained.

    by_gradients: whether the method is Adam on a gradient that is exact or close to it. bits: of
    weights whose scales are trained: the more levels, the smaller these are, and the steeper.
    """
    finer = min(1.0, _LEVELS / (2 ** (bits - 1) - 1)) if bits else 1.0
    if by_gradients:
        return finer * _BY_GRADIENTS * min(1.0, math.sqrt(_LARGE / numbers))
    if method in OWN_SIZE:
        return finer * OWN_SIZE[method]
    if bits:
        return finer**2 * _OF_SCALES
    return min(_LARGEST, TIMES_NUMBERS.get(method, _USUAL) / numbers)

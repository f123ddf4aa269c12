"""Names of norms and coordinates, for who only lists them: this needs no torch."""

from typing import Literal, get_args

Norm = Literal["linf", "l2", "l0", "patch"]
NORMS: tuple[Norm, ...] = get_args(Norm)
CoordinateName = Literal["pixels", "waves", "blocks", "tanh"]
COORDINATES: tuple[CoordinateName, ...] = get_args(CoordinateName)

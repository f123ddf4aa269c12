"""A linear way back from outputs to layers, learned from the probes that are made anyway.

    dz_i ~ S_i A,   A = (S^T S + lam I)^-1 S^T dz          one ridge regression over all layers
    f_i  = A e_i,   e_i = d l_i / d z_i                    what is fed back to the layers

A row S_i has the noise of an example at all layers, each times the local derivative there; dz_i is
what the outputs did. Ridge layer by layer on the others' residuals diverges, so all are solved at
once. The share of |dz|^2 that A explains is measured on probes before they enter the sums, and A
counts as 0 where that share is below 0. Sums of probes of several clients add up.

Linear feedback learned by regression is that of node perturbation: Lansdell, Prakash & Kording,
"Learning to solve the credit assignment problem", ICLR 2020; differs: a regression of the outputs'
responses, jointly, instead of a gradient descent on the loss's, layer by layer.
Shapes: S [b, N], dz and e [b, C], A [N, C]. Memory: N^2 + 2 N C numbers in float64. Cost:
2 b N (N + C) operations a probed batch, N^3 / 3 a solution.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require

_FADING = 0.5
"""What earlier probes count in the explained share, at each solution: A is another one then."""


@dataclass(slots=True)
class Feedback:
    """The sums of a regression, its solution, and how well that explains probes it has not seen.

    widths: numbers of noise at each layer. ridge: lam in multiples of the mean square of S.
    memory: after how many examples the sums fade, for a way back that moves as the weights do.
    """

    widths: tuple[int, ...]
    outputs: int
    ridge: float = 10.0
    memory: float = float("inf")
    device: torch.device | str = "cpu"
    count: float = field(default=0.0, init=False)
    gram: Float[Tensor, "N N"] = field(init=False)
    cross: Float[Tensor, "N C"] = field(init=False)
    weights: Float[Tensor, "N C"] = field(init=False)
    _missed: float = field(default=0.0, init=False)
    _moved: float = field(default=0.0, init=False)
    _solved: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        size = sum(self.widths)
        self.gram = torch.zeros(size, size, dtype=torch.float64, device=self.device)
        self.cross = torch.zeros(size, self.outputs, dtype=torch.float64, device=self.device)
        self.weights = torch.zeros(size, self.outputs, device=self.device)

    @property
    def explained(self) -> float:
        """The share of |dz|^2 that A explains of probes which were not in its sums; 0 before."""
        return 1 - self._missed / self._moved if self._moved else 0.0

    @property
    def is_trusted(self) -> bool:
        """Whether A is better than none."""
        return self.explained > 0

    def observe(self, noise: Float[Tensor, "b N"], response: Float[Tensor, "b C"]) -> None:
        """Judge A by a batch of probes, then add them to the sums."""
        if self._solved:
            self._missed += float((response - noise @ self.weights).square().sum())
            self._moved += float(response.square().sum())
        self.gram += noise.T @ noise
        self.cross += noise.T @ response
        self.count += len(noise)

    def solve(self) -> None:
        """Compute A from the sums."""
        if not self.count:
            return
        if self.count > self.memory:
            self._scale(self.memory / self.count)
        lam = self.ridge * float(self.gram.diagonal().mean()) / self.count
        left = self.gram.clone()
        left.diagonal().add_(max(lam, torch.finfo(left.dtype).tiny))
        factor, _ = torch.linalg.cholesky_ex(left)
        self.weights = torch.cholesky_solve(self.cross, factor).float()
        self._missed, self._moved = self._missed * _FADING, self._moved * _FADING
        self._solved = True

    def error(self, e: Float[Tensor, "b C"]) -> Float[Tensor, "b N"] | None:
        """Return what is fed back for these derivatives; None where A explains nothing."""
        return e @ self.weights.T if self.is_trusted else None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums, the solution and its record."""
        numbers = [self.count, self._missed, self._moved, float(self._solved)]
        record = torch.tensor(numbers, dtype=torch.float64)
        return {
            "gram": self.gram,
            "cross": self.cross,
            "weights": self.weights,
            "record": record,
            "widths": torch.tensor(self.widths),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of the same layers and outputs; raises ConfigError for others."""
        told = tuple(state["widths"].tolist())
        require(told == self.widths, "widths", told, f"those of this module, {self.widths}")
        self.gram.copy_(state["gram"])
        self.cross.copy_(state["cross"])
        self.weights = state["weights"].to(self.weights)
        self.count, self._missed, self._moved, solved = state["record"].tolist()
        self._solved = bool(solved)

    @staticmethod
    def merged(parts: Sequence["Feedback"]) -> "Feedback":
        """Return the feedback of all clients' probes together, solved, and not yet judged."""
        require(len(parts) > 0, "parts", "none", "at least one Feedback")
        first = parts[0]
        for part in parts:
            require(
                (part.widths, part.outputs) == (first.widths, first.outputs),
                "parts",
                part.widths,
                f"all of the same layers, {first.widths}",
            )
        whole = Feedback(first.widths, first.outputs, first.ridge, first.memory, first.device)
        for part in parts:
            whole.gram += part.gram
            whole.cross += part.cross
            whole.count += part.count
        whole.solve()
        return whole

    def _scale(self, factor: float) -> None:
        self.gram *= factor
        self.cross *= factor
        self.count *= factor

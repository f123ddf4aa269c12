"""What FedProx and SCAFFOLD add to a client's gradient.

    g <- g + weight (x - x_start) + c - c_i

    weight:   Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, eq. 2
    c_i, c:   Karimireddy et al., "SCAFFOLD", ICML 2020, algorithm 1: a client's control variate,
              which it keeps, and their mean over clients, which the server sends

Shapes: x, x_start, g, c_i [n, d], c [d]. Cost: no query; what is sent: see
strategies.averaging.scaffold.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.protocol.exchange import ClientState
from fedzo.protocol.questions.training import LocalSteps

CONTROL = "control"


class Correction:
    """The correction of a cohort's gradients during one exchange."""

    def __init__(
        self, question: LocalSteps, states: Sequence[ClientState], start: Float[Tensor, "n d"]
    ) -> None:
        self._weight = question.proximal_weight
        self._states = states
        self._start = start
        common = question.control
        self._own = torch.zeros_like(start[:1]) if common is None else _controls(states, start)
        self._shift = None if common is None else common - self._own
        self._total = torch.zeros_like(start) if question.renew_control else None
        self._steps = 0

    @property
    def active(self) -> bool:
        """Whether there is anything to add or to renew."""
        return self._weight != 0 or self._shift is not None or self._total is not None

    def __call__(
        self, gradient: Float[Tensor, "n d"], x: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """Return the gradient that the client steps along."""
        if self._total is not None:
            self._total = self._total + gradient
            self._steps += 1
        if self._weight:
            gradient = gradient + self._weight * (x - self._start)
        return gradient if self._shift is None else gradient + self._shift

    def finish(self) -> tuple[Float[Tensor, "n d"] | None, Sequence[ClientState]]:
        """Return the control variates to send, if any, and the clients' next states."""
        if self._total is None:
            return None, self._states
        control = self._total / max(1, self._steps) if self._steps else self._own
        return control, keep_control(self._states, control)


def keep_control(
    states: Sequence[ClientState], control: Float[Tensor, "n d"]
) -> Sequence[ClientState]:
    """Return the states with each client's control variate in it."""
    return [{**state, CONTROL: row} for state, row in zip(states, control, strict=True)]


def _controls(states: Sequence[ClientState], like: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    zero = torch.zeros_like(like[0])
    return torch.stack([state.get(CONTROL, zero).to(like) for state in states])

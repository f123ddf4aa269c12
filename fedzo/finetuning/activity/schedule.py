"""Which form of the estimate a step takes, and when it probes.

    node       delta = c xi                             no feedback, 2 forward passes
    unbiased   delta = f + (c - <f, xi>) xi             2 forward passes
    biased     delta = f                                1 forward pass, 2 every `period` steps

While `warm_up` steps last, A learns from unbiased probes and no weight moves.
auto: unbiased until A explains `trust` of the held-out probes; biased while the loss falls;
unbiased for good when it has not fallen for `patience` windows, as the biased form settles where f,
not the gradient, is 0; unbiased for a while whenever A explains less. The loss is that of a window
of `solve_every` steps, before each step, or what held-out examples say at its end.
"""

from dataclasses import dataclass
from typing import Literal

from fedzo.config import check_types, require

FeedbackName = Literal["auto", "biased", "unbiased", "off"]
Form = Literal["node", "unbiased", "biased"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityConfig:
    """eps: of the noise, 0 for what suits the outputs' type (1e-3 in single precision, 2^-5 in
    bfloat16); ridge and memory: see Feedback; the others: see the module.
    """

    eps: float = 0.0
    warm_up: int = 0
    period: int = 4
    solve_every: int = 64
    ridge: float = 10.0
    memory: float = 4000.0
    trust: float = 0.3
    patience: int = 3

    def __post_init__(self) -> None:
        check_types(self)
        require(self.eps >= 0, "eps", self.eps, "positive, or 0 for what suits the outputs' type")
        for name in ("period", "solve_every", "patience"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.warm_up >= 0, "warm_up", self.warm_up, "at least 0 steps")
        require(self.ridge >= 0, "ridge", self.ridge, "at least 0")
        require(self.memory > 0, "memory", self.memory, "positive")
        require(0 <= self.trust < 1, "trust", self.trust, "at least 0 and below 1")


@dataclass(slots=True)
class Schedule:
    """What has been decided so far."""

    feedback: FeedbackName
    config: ActivityConfig
    steps: int = 0
    exhausted: bool = False
    best: float = float("inf")
    stale: int = 0
    total: float = 0.0
    losses: int = 0

    def form(self, explained: float) -> Form:
        """Return the form of the next step, for what A explains of held-out probes."""
        if self.feedback == "off":
            return "node"
        if self.feedback == "unbiased" or explained <= 0 or not self.moves:
            return "unbiased"
        if self.feedback == "auto" and (self.exhausted or explained < self.config.trust):
            return "unbiased"
        return "biased"

    def probes(self, form: Form) -> bool:
        """Return whether the next step perturbs anything."""
        return form != "biased" or self.steps % self.config.period == 0

    @property
    def moves(self) -> bool:
        """Whether the next step moves weights."""
        return self.feedback == "off" or self.steps >= self.config.warm_up

    @property
    def ends_window(self) -> bool:
        """Whether the step that is under way is the last of its window."""
        return (self.steps + 1) % self.config.solve_every == 0

    @property
    def solves(self) -> bool:
        """Whether the feedback is solved after this step: early at 8, 16, ... steps."""
        done = self.steps + 1
        return self.ends_window or (8 <= done < self.config.solve_every and done & self.steps == 0)

    @property
    def needs_loss(self) -> bool:
        """Whether this step's window, which ends with it, is judged by its loss."""
        return self.feedback == "auto" and self.ends_window and not self.exhausted

    def hear(self, form: Form, loss: float, held_out: float | None) -> None:
        """Count a step with its loss, and decide at the end of a window of biased ones."""
        if form == "biased":
            self.total += loss
            self.losses += 1
        if self.ends_window and self.losses:
            self._judge(self.total / self.losses if held_out is None else held_out)
            self.total, self.losses = 0.0, 0
        self.steps += 1

    def _judge(self, loss: float) -> None:
        self.stale = 0 if loss < self.best else self.stale + 1
        self.best = min(self.best, loss)
        self.exhausted = self.exhausted or self.stale >= self.config.patience

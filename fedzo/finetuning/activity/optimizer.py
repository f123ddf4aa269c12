"""ActivityZO: noise at the outputs of layers, a slope for every example, and a learned way back.

    z_i(+-) = outputs with h_l +- eps xi_il at every layer l,   dz_i = [z_i(+) - z_i(-)] / (2 eps)
    e_i = d l_i / d z_i,   c_i = <e_i, dz_i>,   f_il = g_l o (A_l e_i)
    delta_il = f_il + (c_i - <f_i, xi_i>) xi_il          grad W_l = (1/b) sum_it delta_ilt x_ilt^T

One pair of forward passes gives a slope per example, where perturbed weights give one per batch,
and among N numbers of activity, where there are d of weights: with r_i what is not fed back, of
E|delta_il|^2 only N |r_i|^2 is noise, so E|g|^2 / |grad|^2 is about 1 + N rho / b, rho =
mean |g_i|^2 / |grad|^2 of the residual. Unbiased, up to O(eps^2), for any A and any gates g, where
tokens do not share noise (shared noise tells their sum alone, and each token gets the mean); the
head's gradient, e_i x_i^T, is exact. A is learned from the same probes
(fedzo.finetuning.activity.feedback), and f alone costs one forward pass.

Node perturbation: Lansdell, Prakash & Kording, "Learning to solve the credit assignment problem",
ICLR 2020; Dalm, van Gerven & Ahmad, "Effective Learning with Node Perturbation in Deep Neural
Networks", arXiv 2310.00965. Differs from the papers: central differences, of outputs instead of
losses; the feedback is a control variate of each example, learned for all layers at once by ridge
regression.
Cost: fedzo.finetuning.activity.schedule; one pass more, once, to find the head. Shapes: z [b, C],
losses [b].
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from fedzo.config import as_seed, require
from fedzo.errors import ConfigError
from fedzo.estimation.keys import Key
from fedzo.finetuning.activity.calls import rows, widths, write_gradients
from fedzo.finetuning.activity.feedback import Feedback
from fedzo.finetuning.activity.heard import Heard, Losses, judged
from fedzo.finetuning.activity.noise import Noise
from fedzo.finetuning.activity.passes import outputs_and_targets, unchanged_buffers
from fedzo.finetuning.activity.schedule import ActivityConfig, FeedbackName, Form, Schedule
from fedzo.finetuning.activity.sites import Sites
from fedzo.finetuning.same_draws import same_draws

Closure = Callable[[], tuple[Tensor, Tensor]]
"""Returns the module's outputs [b, ...] on a batch, and its targets."""
Inner = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

_EPS = 1e-3
_SHARES_ABOVE, _MOST = 1_024, 16_384
"""Numbers of noise an example: a feedback of the latter takes 4 GB and minutes to solve."""


@dataclass(slots=True)
class Spent:
    """Passes forward, examples in all of them, and steps without finite numbers, not taken."""

    forwards: int = 0
    examples: int = 0
    skipped: int = 0


class ActivityZO(torch.optim.Optimizer):
    """Trains layers of a module by forward passes alone, with per-example losses.

        optimizer = fedzo.ActivityZO(model, nn.CrossEntropyLoss(reduction="none"), lr=1e-3)
        for x, y in batches:
            loss = optimizer.step(lambda: (model(x), y))

    losses: of outputs and targets, one for each example, differentiable in the outputs. inner:
    "adam", "sgd", or a function that makes an optimizer of torch for parameters, whose groups and
    state are this one's; lr is then its own. feedback: "off" is node perturbation; see the module
    `schedule`. held_out: a closure on other examples, asked once a window in the form "auto".
    The module runs in the mode that it is in, with the same dropout on both sides of a probe;
    buffers are put back. Needs layers that are called as modules; sites, chained, share_tokens: see
    fedzo.finetuning.activity.sites. share_tokens: None shares where the feedback would else need
    more than 1,024 numbers of noise an example, as it is learned from few examples, but not with
    feedback="unbiased", which it would not be then.
    """

    def __init__(
        self,
        module: nn.Module,
        losses: Losses,
        lr: float = 1e-3,
        *,
        sites: str | Sequence[str] | None = None,
        chained: str | Sequence[str] = (),
        feedback: FeedbackName = "auto",
        inner: str | Inner = "adam",
        seed: int = 0,
        share_tokens: bool | None = None,
        held_out: Closure | None = None,
        config: ActivityConfig | None = None,
    ) -> None:
        self.module, self.losses, self.held_out = module, losses, held_out
        self.config = config or ActivityConfig()
        self.sites = Sites(module, sites, chained=chained, share_tokens=bool(share_tokens))
        if sites is None:
            self.sites.warn_of_unmoved(module)
        self._may_share = share_tokens is None and feedback in ("auto", "biased")
        self.spent = Spent()
        self.feedback: Feedback | None = None
        self._noise = Noise(Key(seed=as_seed(seed), parts=("activity",)))
        self._schedule = Schedule(feedback, self.config)
        self._inner = _made(inner, self.sites.parameters, lr)
        super().__init__(self.sites.parameters, {"lr": lr})
        self._share()

    @property
    def explained(self) -> float:
        """The share of the outputs' responses that the feedback explains, on held-out probes."""
        return self.feedback.explained if self.feedback is not None else 0.0

    @property
    def form(self) -> Form:
        """The form that the next step takes."""
        return self._schedule.form(self.explained)

    @torch.no_grad()
    def step(self, closure: Closure) -> float:  # type: ignore[override]
        """Take a step, which leaves its gradients in `.grad`, and return the mean loss before it.

        A step with a loss or a response that is not finite moves nothing.
        """
        form = self.form
        heard = self._asked(closure, probes=self._schedule.probes(form))
        if heard.is_finite:
            self._estimate(heard, form)
            if self._schedule.moves:
                self._inner.step()
        else:
            self.spent.skipped += 1
        loss = float(heard.losses.mean())
        self._schedule.hear(form, loss, self._held_out_loss())
        return loss

    @torch.no_grad()
    def estimate(self, closure: Closure, form: Form | None = None) -> float:
        """Do what a step does, but leave the parameters to the caller, with what is in `.grad`.

        form: of the estimate, always with a probe; that of the schedule if left out.
        """
        told = form or self.form
        heard = self._asked(closure, probes=form is not None or self._schedule.probes(told))
        self._estimate(heard, told)
        loss = float(heard.losses.mean())
        self._schedule.hear(told, loss, self._held_out_loss())
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group of all sites; raises ConfigError for another."""
        if self.param_groups:
            raise ConfigError(
                "ActivityZO trains its sites; give groups by inner=lambda parameters: an optimizer"
            )
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        """Raise ConfigError, for copies of any kind."""
        raise ConfigError(
            "ActivityZO cannot be copied; load its state_dict() into that of another module"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the groups and state as torch does, with what was learned and decided."""
        schedule = {
            f.name: getattr(self._schedule, f.name)
            for f in fields(Schedule)
            if f.name not in ("feedback", "config")
        }
        own = {
            "schedule": schedule,
            "feedback": self.feedback.state_dict() if self.feedback is not None else None,
            "noise": self._noise.place,
            "spent": [getattr(self.spent, f.name) for f in fields(Spent)],
            "outputs": self.feedback.outputs if self.feedback is not None else 0,
            "sites": self.sites.state(),
        }
        return {**self._inner.state_dict(), "activity": deepcopy(own)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of an optimizer of the same module and settings."""
        inner = {name: part for name, part in state_dict.items() if name != "activity"}
        own = state_dict["activity"]
        self._inner.load_state_dict(inner)
        self._share()
        self._noise.place, self.spent = own["noise"], Spent(*own["spent"])
        for name, value in own["schedule"].items():
            setattr(self._schedule, name, value)
        if "sites" in own:
            self.sites.load(own["sites"])
        if own["feedback"] is not None:
            shape = tuple(own["feedback"]["widths"].tolist())
            self.feedback = self._new_feedback(shape, own["outputs"])
            self.feedback.load_state_dict(own["feedback"])

    def _share(self) -> None:
        """Let this optimizer's groups and state be those of the inner one."""
        self.param_groups, self.state = self._inner.param_groups, self._inner.state

    def _asked(self, closure: Closure, *, probes: bool) -> Heard:
        """Run the module on a batch, with and without noise."""
        again = same_draws(self.module.parameters())
        with unchanged_buffers(self.module):
            if not self.sites.is_located:
                self.sites.locate(lambda: self._forward(closure)[0])
                again()
                self.sites.share_tokens |= self._may_share and self.sites.numbers > _SHARES_ABOVE
            if not probes:
                with self.sites.read() as calls:
                    z, targets = self._forward(closure)
                return judged(self.losses, calls, z.clone(), None, targets)
            eps = self._eps()
            with self.sites.read(self._noise, eps) as calls:
                plus, targets = self._forward(closure)
            again()
            with self.sites.mirrored(calls, eps):
                minus, _ = self._forward(closure)
        return judged(self.losses, calls, (plus + minus) / 2, (plus - minus) / (2 * eps), targets)

    def _eps(self) -> float:
        """Return the size of the noise; raises ConfigError for one that outputs round away."""
        eps, spacing = self.config.eps, self.sites.spacing
        allowed = f"at least {spacing:.2g}, the outputs' spacing near 1, or 0 for what suits it"
        require(eps == 0 or eps >= spacing, "eps", eps, allowed)
        return eps or max(_EPS, 4 * spacing)

    def _forward(self, closure: Closure) -> tuple[Tensor, Tensor]:
        outputs, targets = outputs_and_targets(closure())
        self.spent.forwards += 1
        self.spent.examples += len(outputs)
        return outputs, targets

    def _estimate(self, heard: Heard, form: Form) -> None:
        """Set `.grad`, then learn from the probe: A has not seen the noise it is used with."""
        own = widths(heard.calls)
        learns = self._schedule.feedback != "off" and bool(own)
        if learns and self.feedback is None:
            self.feedback = self._new_feedback(own, heard.e.shape[1])
        if learns and self.feedback is not None:
            require(
                own == self.feedback.widths,
                "outputs of sites",
                own,
                f"of the same size in every batch, {self.feedback.widths}; share_tokens=True"
                " allows sequences of any length",
            )
        self._write(heard, form)
        if learns and self.feedback is not None:
            if heard.response is not None:
                self.feedback.observe(rows(heard.calls), heard.response)
            if self._schedule.solves:
                self.feedback.solve()

    def _new_feedback(self, shape: tuple[int, ...], outputs: int) -> Feedback:
        require(
            sum(shape) <= _MOST,
            "sites",
            f"{sum(shape):,} numbers an example",
            f"at most {_MOST:,}, since the feedback holds their square; name fewer layers, chain"
            " some, share_tokens, or feedback='off'",
        )
        device = self.sites.parameters[0].device
        return Feedback(shape, outputs, self.config.ridge, self.config.memory, device)

    def _write(self, heard: Heard, form: Form) -> None:
        """Set `.grad` of the sites' parameters by a form of the estimate, None without one."""
        b = len(heard.e)
        for group in self._inner.param_groups:  # a layer may have had no part in this pass
            for parameter in group["params"]:
                parameter.grad = None
        fed = self.feedback.error(heard.e) if self.feedback is not None and form != "node" else None
        residual = None
        if form == "biased":
            fed = fed if fed is not None else torch.zeros(b, sum(widths(heard.calls))).to(heard.e)
        else:
            assert heard.response is not None
            residual = (heard.e * heard.response).sum(1)
            if fed is not None:
                residual = residual - (rows(heard.calls) * fed).sum(1)
            residual = residual / b
        write_gradients(heard.calls, heard.e / b, fed / b if fed is not None else None, residual)

    def _held_out_loss(self) -> float | None:
        """Return the loss on held-out examples at the end of a window, where it decides."""
        if self.held_out is None or not self._schedule.needs_loss:
            return None
        with unchanged_buffers(self.module):
            outputs, targets = self._forward(self.held_out)
        return float(self.losses(outputs, targets).mean())


def _made(inner: str | Inner, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Return the optimizer that moves the parameters."""
    if callable(inner):
        return inner(parameters)
    require(inner in ("adam", "sgd"), "inner", inner, "adam, sgd, or a function of the parameters")
    named = torch.optim.Adam if inner == "adam" else torch.optim.SGD
    return named(parameters, lr=lr)

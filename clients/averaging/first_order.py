"""Local steps along exact gradients (the client of FedAvg).

    x_0 = x;   x_{t+1} = optimizer(x_t, grad f_i(x_t; B_t))

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS
2017, algorithm 1 (ClientUpdate). Shapes: x [d], update [n, d]. Cost: one gradient a step and
client. Sent: d floats up, d down.

Differs from the paper: the number of steps is given, not the number of epochs, and any optimizer of
fedzo.optimizers may be used. `compile=True` compiles the whole local loop with torch.compile (10-30
s once, then several times faster on small models); its results agree to rounding, not bit for bit.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from clients.averaging.compiled import Batches, CompiledLoop
from clients.core.correction import Correction
from clients.core.curvature import Curvature
from clients.core.local import minibatches, part_of
from clients.core.local_optimizers import make_local_optimizer
from fedzo.errors import ConfigError
from fedzo.objectives.box import Bound
from fedzo.objectives.cohort import CohortObjective, cohort_gradient
from fedzo.objectives.oracle import project
from fedzo.protocol.questions.training import FirstOrderSteps, Trained
from fedzo.protocol.questions.training_config import FirstOrderConfig
from fedzo.runtime.local import Answered, Clients

Told = Callable[[Float[Tensor, "n d"], Int[Tensor, "n b"] | None], tuple[Float[Tensor, "n d"], ...]]
"""What a step is told at an x: the gradients, and curvatures where the optimizer asks for them."""


class FirstOrder:
    """The local rule `first_order`; holds nothing but the compiled form of its loop."""

    def __init__(self) -> None:
        self._loop = CompiledLoop(_descend_freely)

    def __call__(self, question: FirstOrderSteps, clients: Clients) -> Answered:
        config, cohort = question.settings, clients.cohort
        batches = minibatches(clients, config, question.local_steps)
        optimizer = make_local_optimizer(config.optimizer, momentum=config.momentum)
        start = clients.at(question.x)
        steps, lr = question.local_steps, question.local_lr
        correct = Correction(question, clients.states, start)
        if config.compile:
            _require_compilable(config, batches, correct)
            of = part_of(cohort, None if batches is None else batches[:, 0])
            clients.oracle.count_gradients(steps, of=of)
            update = self._loop(cohort, start, batches, optimizer, steps, lr, config)
            return Trained(update=update), clients.states
        box = (cohort.lower, cohort.upper) if config.project else None
        told = _told(clients, correct, curved=config.optimizer == "adahessian")
        update = descend(told, start, batches, optimizer, steps, lr, box) - start
        control, states = correct.finish()
        return Trained(update=update, control=control), states


def _told(clients: Clients, correct: Correction, *, curved: bool) -> Told:
    """Return what asks the oracle for corrected gradients, and for curvatures where they are used.

    Corrections do not curve: a proximal term's part of the Hessian is left out.
    """
    cohort, oracle = clients.cohort, clients.oracle
    if not curved:
        return lambda x, batch: (correct(oracle.gradient(x, of=part_of(cohort, batch)), x),)
    curvature = Curvature(clients)

    def told(x: Tensor, batch: Tensor | None) -> tuple[Tensor, ...]:
        gradient, diagonal = curvature(x, of=part_of(cohort, batch))
        return correct(gradient, x), diagonal

    return told


def _require_compilable(config: FirstOrderConfig, batches: Batches, correct: Correction) -> None:
    """Raise ConfigError for what the compiled loop does not know."""
    if correct.active:
        raise ConfigError(
            "client.compile=true knows plain local steps alone, not those of FedProx and"
            " SCAFFOLD; set it to false"
        )
    if config.optimizer in ("adahessian", "microadam"):
        raise ConfigError(
            f"client.compile=true does not know client.optimizer={config.optimizer}; set it to"
            " false"
        )
    if batches is not None and bool((batches < 0).any()):
        raise ConfigError(
            f"client.batch_size={config.batch_size} with client.compile=true needs as many"
            " examples of every client; lower it, or set client.compile=false"
        )


def descend(
    told: Told,
    start: Float[Tensor, "n d"],
    batches: Batches,
    optimizer: Any,
    steps: int,
    lr: float,
    box: tuple[Bound, Bound] | None,
) -> Float[Tensor, "n d"]:
    """Take the local steps of a cohort and return where each client ends."""
    x, moments = start, optimizer.init(start)
    for step in range(steps):
        batch = None if batches is None else batches[:, step]
        gradient, *more = told(x, batch)
        moments, x = optimizer.step(moments, x, gradient, lr, *more)
        x = project(x, *box) if box else x
    return x


def _descend_freely(
    cohort: CohortObjective,
    start: Float[Tensor, "n d"],
    batches: Batches,
    optimizer: Any,
    steps: int,
    lr: float,
    config: FirstOrderConfig,
) -> Float[Tensor, "n d"]:
    """Return the updates of local steps without an oracle between: what is compiled."""
    bounds = (cohort.lower, cohort.upper)
    clip = config.out_of_bounds == "clip"

    def told(x: Tensor, batch: Tensor | None) -> tuple[Tensor, ...]:
        return (cohort_gradient(part_of(cohort, batch), project(x, *bounds) if clip else x),)

    box = bounds if config.project else None
    return descend(told, start, batches, optimizer, steps, lr, box) - start

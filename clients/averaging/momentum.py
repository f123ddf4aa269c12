"""Local steps along a momentum that each client keeps from round to round (MoNNA, robust D-SHB).

    m_i <- beta m_i + (1 - beta) g_i;   x_i <- x_i - lr m_i;   g_i = a (minibatch) gradient at x_i

    train.momentum:  x [d]        -> update [n, d]   all start at the server's x (robust D-SHB)
    train.own_model: (x [d])      -> model [n, d]    each goes on from its own x_i (MoNNA), or from
                                                     x where it has none; its half step is sent

MoNNA: Farhadkhani et al., "Robust Collaborative Learning with Linear Gradient Overhead", ICML 2023,
algorithm 1, steps 1 to 3. Robust distributed stochastic heavy ball: Allouah et al., "Fixing by
Mixing", AISTATS 2023, algorithm 1. Averaging over time takes the noise out of what honest clients
send, so that a liar has less to hide in. Cost a step and client: one gradient, or the queries of
`gradient`. Sent: d floats up; d down, or none.

Differs from the papers: no bias correction, as in the code of MoNNA; any number of local steps; g_i
may be estimated from values, whose noise the momentum averages too.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clients.averaging.zeroth_order import Estimate
from clients.core.local import minibatches, part_of
from fedzo.protocol.exchange import ClientState
from fedzo.protocol.questions.peers import Model, OwnModel
from fedzo.protocol.questions.training import MomentumSteps, Trained
from fedzo.runtime.local import Answered, Clients

MOMENTUM, MODEL = "momentum", "model"


def train_momentum(question: MomentumSteps, clients: Clients) -> Answered:
    """Start at the server's x and answer how far the momentum leads."""
    start = clients.at(question.x)
    x, momentum = _descend(question, clients, start)
    return Trained(update=x - start), _keep(clients.states, **{MOMENTUM: momentum})


def train_own_model(question: OwnModel, clients: Clients) -> Answered:
    """Go on from the own model, or from x where there is none, and answer where it leads."""
    start = own_models(question, clients)
    x, momentum = _descend(question, clients, start)
    return Model(model=x), _keep(clients.states, **{MOMENTUM: momentum, MODEL: x})


def own_models(question: OwnModel, clients: Clients) -> Float[Tensor, "n d"]:
    """Return each client's model; the server's x where it has none yet."""
    if question.x is not None:
        return clients.at(question.x)
    return torch.stack([state[MODEL] for state in clients.states])


def _descend(
    question: MomentumSteps | OwnModel, clients: Clients, x: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Take the local steps; fewer where the budget ends."""
    config, oracle = question.settings, clients.oracle
    momentum = _kept(clients.states, MOMENTUM, x)
    batches = minibatches(clients, config, question.local_steps)
    estimate = _estimate(question, clients)
    for step in range(question.local_steps):
        batch = None if batches is None else batches[:, step]
        if estimate is None:
            gradient = oracle.gradient(x, of=part_of(clients.cohort, batch))
        elif oracle.remaining < estimate.num_queries:
            break
        else:
            gradient, _ = estimate.gradient(x, batch, None)
        gradient = gradient + config.weight_decay * x if config.weight_decay else gradient
        momentum = config.beta * momentum + (1 - config.beta) * gradient
        x = x - question.local_lr * momentum
    return x, momentum


def _estimate(question: MomentumSteps | OwnModel, clients: Clients) -> Estimate | None:
    settings = question.settings
    if settings.exact:
        return None
    sources = clients.streams("directions")
    return Estimate(settings.estimate, clients.oracle, sources, question.local_steps)


def _kept(
    states: Sequence[ClientState], name: str, like: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """Return what clients keep under a name; zeros for those who have nothing."""
    zero = torch.zeros_like(like[0])
    return torch.stack([state.get(name, zero).to(like) for state in states])


def _keep(states: Sequence[ClientState], **kept: Float[Tensor, "n d"]) -> Sequence[ClientState]:
    """Return the states with each client's row of these tensors."""
    return [{**state, **{n: t[i] for n, t in kept.items()}} for i, state in enumerate(states)]

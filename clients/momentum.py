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
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clients.gradients import GradientConfig
from clients.local import LocalTraining, minibatches, part_of, start_points
from clients.zeroth_order import Estimate, ZerothOrderConfig
from fedzo.config import require, require_nonnegative, take_config
from fedzo.directions import DirectionKind
from fedzo.exchange import ClientState, Exchange
from fedzo.oracle import Oracle
from fedzo.randomness import streams

MOMENTUM, MODEL = "momentum", "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentumConfig(GradientConfig):
    """Settings of the rule `momentum`.

    beta: share of the old momentum. weight_decay: added to the gradient, times x. directions: their
    law, with gradient=zeroth_order, as in the rule of that name.
    """

    beta: float = 0.9
    weight_decay: float = 0.0
    directions: DirectionKind = "orthogonal"

    def __post_init__(self) -> None:
        GradientConfig.__post_init__(self)
        require(0 <= self.beta < 1, "beta", self.beta, "at least 0 and below 1")
        require_nonnegative("weight_decay", self.weight_decay)


def train_momentum(
    exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]
) -> tuple[dict[str, Tensor], Sequence[ClientState]]:
    """Start at the server's x and answer how far the momentum leads."""
    start = start_points(exchange)
    x, momentum = _descend(exchange, oracle, start, _kept(states, MOMENTUM, start))
    return {"update": x - start}, _keep(states, **{MOMENTUM: momentum})


def train_own_model(
    exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]
) -> tuple[dict[str, Tensor], Sequence[ClientState]]:
    """Go on from the own model, or from x where there is none, and answer where it leads."""
    start = own_models(exchange, states)
    x, momentum = _descend(exchange, oracle, start, _kept(states, MOMENTUM, start))
    return {"model": x}, _keep(states, **{MOMENTUM: momentum, MODEL: x})


def own_models(exchange: Exchange, states: Sequence[ClientState]) -> Float[Tensor, "n d"]:
    """Return each client's model; the server's x where it has none yet."""
    if "x" in exchange.shared:
        return start_points(exchange)
    return torch.stack([state[MODEL] for state in states])


def _descend(
    exchange: Exchange, oracle: Oracle, x: Float[Tensor, "n d"], momentum: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Take the local steps; fewer where the budget ends."""
    config = take_config(MomentumConfig, exchange.config)
    training = take_config(LocalTraining, exchange.config)
    batches = minibatches(oracle.cohort, config, training, exchange.client_ids)
    estimate = _estimate(config, training, exchange, oracle)
    for step in range(training.local_steps):
        batch = None if batches is None else batches[:, step]
        if estimate is None:
            gradient = oracle.gradient(x, of=part_of(oracle.cohort, batch))
        elif oracle.remaining < estimate.num_queries:
            break
        else:
            gradient, _ = estimate.gradient(x, batch, None)
        gradient = gradient + config.weight_decay * x if config.weight_decay else gradient
        momentum = config.beta * momentum + (1 - config.beta) * gradient
        x = x - training.local_lr * momentum
    return x, momentum


def _estimate(
    config: MomentumConfig, training: LocalTraining, exchange: Exchange, oracle: Oracle
) -> Estimate | None:
    if config.gradient == "exact":
        return None
    zeroth = take_config(ZerothOrderConfig, exchange.config)
    sources = streams(*training.key("directions"), clients=exchange.client_ids)
    return Estimate(zeroth, oracle, sources, training.local_steps)


def _kept(
    states: Sequence[ClientState], name: str, like: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """Return what clients keep under a name; zeros for those who have nothing."""
    zero = torch.zeros_like(like[0])
    return torch.stack([state.get(name, zero).to(like) for state in states])


def _keep(states: Sequence[ClientState], **kept: Float[Tensor, "n d"]) -> Sequence[ClientState]:
    """Return the states with each client's row of these tensors."""
    return [{**state, **{n: t[i] for n, t in kept.items()}} for i, state in enumerate(states)]

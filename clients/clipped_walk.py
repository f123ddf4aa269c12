"""Private local steps: the client's part of DIFF2 with the BVR-L-SGD routine.

    train.clipped_walk:  x, v  ->  y_K - x            y_0 = x, w_0 = v, y_{k+1} = y_k - lr w_k
        w_k = w_{k-1} + (1 / b) sum_{i in B_k} clip(g_i(y_k) - g_i(y_{k-1}), C3 |y_k - y_{k-1}|)
                      + N(0, (z 2 C3 |y_k - y_{k-1}| / b)^2 I)

Murata & Suzuki, "DIFF2", ICML 2023 (the routine of their "Bias-Variance Reduced Local SGD", ICML
2021); noise and accounting are derived here, no code of it was found. B_k is a fresh sample of b
records without replacement, drawn where the noise is drawn: it must be as secret as the noise for
the sample to count. Shapes: x, v [d], update [n, d]. Cost: 2 (K - 1) gradients of b records. Every
w_k is accounted for as if it were published, though y_K alone is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clients.gradient_difference import Answer, ClippedConfig
from clients.local import LocalTraining, start_points
from fedzo.config import take_config
from fedzo.errors import ConfigError
from fedzo.exchange import ClientState, Exchange
from fedzo.oracle import Oracle
from fedzo.privacy.gaussian import NoiseSource, gaussian_noise, private_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkTask:
    """What the strategy says of a walk.

    local_batch: records a step; local_clip: C3; local_noise: z, in sensitivities of a step.
    """

    local_batch: int
    local_clip: float
    local_noise: float
    noise_source: NoiseSource = "os"


def train_clipped_walk(exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]) -> Answer:
    """Take local steps along v, corrected by private changes of minibatches' gradients."""
    task = take_config(WalkTask, exchange.config)
    training = take_config(LocalTraining, exchange.config)
    config = take_config(ClippedConfig, exchange.config)
    start = start_points(exchange)
    direction = exchange.shared["gradient"].expand_as(start)
    old, x = start, start - training.local_lr * direction
    for step in range(1, training.local_steps):
        batch = _drawn(oracle, task, training, exchange.client_ids, step)
        radii = task.local_clip * torch.linalg.vector_norm(x - old, dim=1)
        part = oracle.cohort.minibatch(batch)  # type: ignore[attr-defined]
        found = oracle.clipped_gradients(x, old, radii, of=part, max_floats=config.max_floats)
        std = 2 * task.local_noise * radii / task.local_batch
        noise = _noise(x.shape[1], task, training, exchange.client_ids, std, step)
        direction = direction + found.sums / task.local_batch + noise.to(x)
        old, x = x, x - training.local_lr * direction
    return {"update": x - start}, states


def _drawn(
    oracle: Oracle, task: WalkTask, training: LocalTraining, clients: Sequence[int], step: int
) -> Int[Tensor, "n b"]:
    """Return a fresh sample of every client's records."""
    if not hasattr(oracle.cohort, "sizes"):
        raise ConfigError("routine=bvr_l_sgd needs objectives over records; set it to gd")
    rows = []
    for client, size in zip(clients, oracle.cohort.sizes.tolist(), strict=True):
        if size < task.local_batch:
            raise ConfigError(
                f"strategy.local_batch={task.local_batch} exceeds the {size} records of client"
                f" {client}; lower it"
            )
        where = (*training.key("private minibatches")[1:], step, client)
        generator = private_generator(task.noise_source, training.seed, *where)
        rows.append(torch.from_numpy(generator.permutation(size)[: task.local_batch]))
    return torch.stack(rows)


def _noise(
    dim: int,
    task: WalkTask,
    training: LocalTraining,
    clients: Sequence[int],
    std: Float[Tensor, " n"],
    step: int,
) -> Float[Tensor, "n d"]:
    where = (*training.key("walk")[1:], step)
    rows = [
        gaussian_noise(dim, own, task.noise_source, training.seed, *where, client)
        for client, own in zip(clients, std.tolist(), strict=True)
    ]
    return torch.stack(rows)

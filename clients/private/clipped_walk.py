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

import torch
from jaxtyping import Float
from torch import Tensor

from clients.private.samples import drawn_records
from fedzo.privacy.counted import clipped_gradients
from fedzo.privacy.gaussian import gaussian_noise
from fedzo.protocol.questions.private import ClippedWalk
from fedzo.protocol.questions.training import Trained
from fedzo.runtime.local import Answered, Clients


def train_clipped_walk(question: ClippedWalk, clients: Clients) -> Answered:
    """Take local steps along v, corrected by private changes of minibatches' gradients."""
    oracle, lr = clients.oracle, question.local_lr
    start = clients.at(question.x)
    direction = clients.at(question.direction)
    old, x = start, start - lr * direction
    for step in range(1, question.local_steps):
        batch = drawn_records(
            clients,
            question.local_batch,
            question.noise_source,
            step,
            setting="strategy.local_batch",
        )
        radii = question.local_clip * torch.linalg.vector_norm(x - old, dim=1)
        part = clients.cohort.minibatch(batch)  # type: ignore[attr-defined]
        most = question.settings.max_floats
        found = clipped_gradients(oracle, x, old, radii, of=part, max_floats=most)
        std = 2 * question.local_noise * radii / question.local_batch
        noise = _noise(question, clients, std, step)
        direction = direction + found.sums / question.local_batch + noise.to(x)
        old, x = x, x - lr * direction
    return Trained(update=x - start), clients.states


def _noise(
    question: ClippedWalk, clients: Clients, std: Float[Tensor, " n"], step: int
) -> Float[Tensor, "n d"]:
    where, source = ("walk", *clients.moment.parts, step), question.noise_source
    rows = [
        gaussian_noise(len(question.x), own, source, clients.seed, *where, client)
        for client, own in zip(clients.ids, std.tolist(), strict=True)
    ]
    return torch.stack(rows)

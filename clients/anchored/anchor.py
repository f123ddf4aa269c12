"""What anchors and miners do (FedAMD, FedSAGA), and clients of methods made of the same parts.

    query.anchor:      x -> g_i(x; large batch)                              an anchor's gradient
    query.walk:        x -> (x - x_K) / (K lr) of K plain steps, the mean gradient along them
    query.difference:  x, previous -> g_i(x; B) - g_i(previous; B)           the same B at both
    train.miner:       x, v -> x_K - x_0:
        x_0 = x, v_0 = v;  x_{k+1} = x_k - lr v_k, v_k = v_{k-1} + g_i(x_k; B_k) - g_i(x_{k-1}; B_k)

Wu, Guo, Qu, He, Liu & Gao, "Anchor Sampling for Federated Learning with Partial Client
Participation", ICML 2023, algorithm 1; the miners' recursion is SARAH's (Nguyen et al., ICML 2017).
Shapes: x, v [d], gradients and updates [n, d]. Cost: an anchor one gradient of its large batch, a
miner 2 (K - 1) of minibatches, since its first step needs none. With `gradient=zeroth_order` they
are made of values (clients.anchored.gradients); slopes are sent instead of vectors where they are
fewer: m of an anchor, (K - 1) m of a miner, which the server replays.

Differs from the paper's code: every batch is drawn afresh (there anchors with a part of their data
saw the same part forever), and the first pair of gradients, which cancels, is not computed. A miner
whose budget ends takes fewer steps, and none when it allows no difference. Anchors may say how much
their examples, or directions, differ:

    variance = c sum_j |g_ij - g_i|^2 / (J - 1)    of one example, from J parts of c examples each
    variance = (1 - m / d) d^2 sum_j s_j^2 / m     of one direction, zeroth-order

The parts are those of the batch; an anchor that uses all its examples draws parts beside.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clients.anchored.gradients import Gradients
from clients.core.local import minibatches
from fedzo.errors import ConfigError
from fedzo.protocol.question import no_numbers
from fedzo.protocol.questions.anchored import (
    BESIDE,
    Anchor,
    AnchorConfig,
    Anchored,
    Difference,
    Mined,
    Miner,
    Walk,
)
from fedzo.protocol.questions.training_config import MinibatchConfig
from fedzo.runtime.local import Answered, Clients


def answer_anchor(question: Anchor, clients: Clients) -> Answered:
    """Return the gradient of a large batch at x; nothing where the budget is too small."""
    config, states = question.settings, clients.states
    gradients, x = Gradients(question, clients), clients.at(question.x)
    if not gradients.affords(1):
        nothing = no_numbers(x)
        return gradients.answer(nothing, nothing if question.reports else None), states
    if config.exact and question.reports:
        return gradients.answer(*_in_parts(question, clients, gradients)), states
    [told] = gradients.tell([x], _large_batch(config, clients), 0)
    told = gradients.without_missing(told)
    variance = _of_directions(told, clients.cohort.dim) if question.reports else None
    return gradients.answer(told, variance), states


def answer_walk(question: Walk, clients: Clients) -> Answered:
    """Return the mean gradient along local steps; nothing where the budget allows no step."""
    config, gradients = question.settings, Gradients(question, clients)
    start = clients.at(question.x)
    wanted = MinibatchConfig(batch_size=config.anchor_batch_size, sampling=config.sampling)
    batches = minibatches(clients, wanted, question.local_steps)
    total, steps = torch.zeros_like(start), 0
    while steps < question.local_steps and gradients.affords(1):
        batch = None if batches is None else batches[:, steps]
        [told] = gradients.tell([start - question.local_lr * total], batch, steps)
        told = gradients.vectors(gradients.without_missing(told), steps)
        total, steps = total + told, steps + 1
    mean = total / steps if steps else no_numbers(start)
    return Anchored(gradient=mean), clients.states


def answer_difference(question: Difference, clients: Clients) -> Answered:
    """Return how the gradient of one large batch differs between x and the previous x."""
    gradients, x = Gradients(question, clients), clients.at(question.x)
    if not gradients.affords(2):
        return gradients.answer(no_numbers(x)), clients.states
    points = [x, clients.at(question.previous)]
    now, before = gradients.tell(points, _large_batch(question.settings, clients), 0)
    return gradients.answer(gradients.without_missing(now - before)), clients.states


def train_miner(question: Miner, clients: Clients) -> Answered:
    """Take local steps along v, corrected by the client's own differences."""
    gradients = Gradients(question, clients)
    start, lr = clients.at(question.x), question.local_lr
    batches = minibatches(clients, question.settings, question.local_steps)
    direction = clients.at(question.direction)
    old, x, said = start, start - lr * direction, [no_numbers(start)]
    for step in range(1, question.local_steps):
        if not gradients.affords(2):
            break
        batch = None if batches is None else batches[:, step]
        now, before = gradients.tell([x, old], batch, step)
        said.append(gradients.without_missing(now - before))
        direction = direction + gradients.vectors(said[-1], step)
        old, x = x, x - lr * direction
    stuck = len(said) == 1 < question.local_steps
    if question.tells == "slopes":
        return Mined(slopes=torch.cat(said, dim=1)), clients.states
    return Mined(update=torch.zeros_like(start) if stuck else x - start), clients.states


def _large_batch(config: AnchorConfig, clients: Clients) -> Tensor | None:
    """Return an anchor's examples; None where it uses all."""
    drawn = _parts(config, clients, config.anchor_batch_size, 1)
    return None if drawn is None else drawn[:, 0]


def _parts(
    config: AnchorConfig, clients: Clients, size: int, count: int
) -> Int[Tensor, "n t b"] | None:
    """Return as many batches of a size; None where the size is 0.

    Several are to differ, so a client with fewer examples goes through them again.
    """
    wanted = MinibatchConfig(batch_size=size, sampling=config.sampling if size else "epochs")
    return minibatches(clients, wanted, count, again=count > 1)


def _in_parts(
    question: Anchor, clients: Clients, gradients: Gradients
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 1"]]:
    """Return the gradient of the batch and the variance of one example's, from J parts."""
    if not hasattr(clients.cohort, "sizes"):
        raise ConfigError(
            "strategy.norm_test needs objectives over examples, or client.gradient=zeroth_order;"
            " set it to 0"
        )
    x, count, config = clients.at(question.x), question.micro_batches, question.settings
    whole = config.anchor_batch_size == 0
    size = BESIDE if whole else max(1, config.anchor_batch_size // count)
    batches = _parts(config, clients, size, count)
    assert batches is not None
    found = torch.stack([gradients.tell([x], batches[:, j], 0)[0] for j in range(count)])
    mean = found.mean(dim=0)
    spread = (found - mean).square().sum(dim=(0, 2)) / (count - 1)
    told = gradients.tell([x], None, 0)[0] if whole else mean
    return told, (size * spread).unsqueeze(1)


def _of_directions(slopes: Float[Tensor, "n m"], dim: int) -> Float[Tensor, "n 1"]:
    missing = 1 - slopes.shape[1] / dim
    return missing * dim * dim * slopes.square().mean(dim=1, keepdim=True)

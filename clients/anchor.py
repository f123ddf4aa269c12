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
are made of values (clients.gradients); slopes are sent instead of vectors where they are fewer:
m of an anchor, (K - 1) m of a miner, which the server replays.

Differs from the paper's code: every batch is drawn afresh (there anchors with a part of their data
saw the same part forever), and the first pair of gradients, which cancels, is not computed. A miner
whose budget ends takes fewer steps, and none when it allows no difference. Anchors may say how much
their examples, or directions, differ:

    variance = c sum_j |g_ij - g_i|^2 / (J - 1)    of one example, from J parts of c examples each
    variance = (1 - m / d) d^2 sum_j s_j^2 / m     of one direction, zeroth-order

The parts are those of the batch; an anchor that uses all its examples draws parts beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clients.gradients import GradientConfig, Gradients, no_answer
from clients.local import LocalTraining, MinibatchConfig, minibatches, start_points
from fedzo.config import require, take_config
from fedzo.errors import ConfigError
from fedzo.exchange import ClientState, Exchange
from fedzo.oracle import Oracle

_BESIDE = 4
"""Examples of each part that an anchor draws beside all its examples."""
Answer = tuple[dict[str, Tensor], Sequence[ClientState]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorConfig(GradientConfig):
    """Settings of the rule `anchor`.

    batch_size: of a miner's step; anchor_batch_size: of an anchor; 0 takes all examples.
    num_directions: of a miner's step; anchor_directions: of an anchor; at most the dimension of x.
    """

    anchor_batch_size: int = 0
    anchor_directions: int = 100

    def __post_init__(self) -> None:
        GradientConfig.__post_init__(self)
        size = self.anchor_batch_size
        require(size >= 0, "anchor_batch_size", size, "0 (all examples) or more")
        count = self.anchor_directions
        require(count >= 1, "anchor_directions", count, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorTask:
    """What the strategy says beside: whether anchors report a variance, and of how many parts."""

    micro_batches: int = 0

    @property
    def reports(self) -> bool:
        """Whether anchors report a variance."""
        return self.micro_batches > 1


def answer_anchor(exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]) -> Answer:
    """Return the gradient of a large batch at x; nothing where the budget is too small."""
    config = take_config(AnchorConfig, exchange.config)
    task = take_config(AnchorTask, exchange.config)
    gradients = Gradients(config, config.anchor_directions, exchange, oracle)
    x = start_points(exchange)
    if not gradients.affords(1):
        said = {"variance": no_answer(x)} if task.reports else {}
        return {gradients.name: no_answer(x), **said}, states
    if config.gradient == "exact" and task.reports:
        told, variance = _in_parts(exchange, oracle, config, gradients)
        return {gradients.name: told, "variance": variance}, states
    [told] = gradients.tell([x], _large_batch(exchange, oracle, config), 0)
    told = gradients.without_missing(told)
    if task.reports:
        return {gradients.name: told, "variance": _of_directions(told, oracle.cohort.dim)}, states
    return {gradients.name: told}, states


def answer_walk(exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]) -> Answer:
    """Return the mean gradient along local steps; nothing where the budget allows no step."""
    config = take_config(AnchorConfig, exchange.config)
    training = take_config(LocalTraining, exchange.config)
    gradients = Gradients(config, config.anchor_directions, exchange, oracle)
    start = start_points(exchange)
    wanted = MinibatchConfig(batch_size=config.anchor_batch_size, sampling=config.sampling)
    batches = minibatches(oracle.cohort, wanted, training, exchange.client_ids)
    total, steps = torch.zeros_like(start), 0
    while steps < training.local_steps and gradients.affords(1):
        batch = None if batches is None else batches[:, steps]
        [told] = gradients.tell([start - training.local_lr * total], batch, steps)
        told = gradients.vectors(gradients.without_missing(told), steps)
        total, steps = total + told, steps + 1
    return {"gradient": total / steps if steps else no_answer(start)}, states


def answer_difference(exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]) -> Answer:
    """Return how the gradient of one large batch differs between x and the previous x."""
    config = take_config(AnchorConfig, exchange.config)
    gradients = Gradients(config, config.anchor_directions, exchange, oracle)
    x = start_points(exchange)
    if not gradients.affords(2):
        return {gradients.name: no_answer(x)}, states
    previous = exchange.shared["previous"].expand(len(x), -1)
    now, before = gradients.tell([x, previous], _large_batch(exchange, oracle, config), 0)
    return {gradients.name: gradients.without_missing(now - before)}, states


def train_miner(exchange: Exchange, oracle: Oracle, states: Sequence[ClientState]) -> Answer:
    """Take local steps along v, corrected by the client's own differences."""
    config = take_config(AnchorConfig, exchange.config)
    training = take_config(LocalTraining, exchange.config)
    gradients = Gradients(config, config.num_directions, exchange, oracle)
    start, lr = start_points(exchange), training.local_lr
    batches = minibatches(oracle.cohort, config, training, exchange.client_ids)
    direction = exchange.shared["gradient"].expand_as(start)
    old, x, said = start, start - lr * direction, [no_answer(start)]
    for step in range(1, training.local_steps):
        if not gradients.affords(2):
            break
        batch = None if batches is None else batches[:, step]
        now, before = gradients.tell([x, old], batch, step)
        said.append(gradients.without_missing(now - before))
        direction = direction + gradients.vectors(said[-1], step)
        old, x = x, x - lr * direction
    stuck = len(said) == 1 < training.local_steps
    if exchange.config.get("answer") == "slopes":
        return {"slopes": torch.cat(said, dim=1)}, states
    return {"update": torch.zeros_like(start) if stuck else x - start}, states


def _large_batch(exchange: Exchange, oracle: Oracle, config: AnchorConfig) -> Tensor | None:
    """Return an anchor's examples; None where it uses all."""
    drawn = _parts(exchange, oracle, config, config.anchor_batch_size, 1)
    return None if drawn is None else drawn[:, 0]


def _parts(
    exchange: Exchange, oracle: Oracle, config: AnchorConfig, size: int, count: int
) -> Int[Tensor, "n t b"] | None:
    """Return as many batches of a size; None where the size is 0.

    Several are to differ, so a client with fewer examples goes through them again.
    """
    training = replace(take_config(LocalTraining, exchange.config), local_steps=count)
    wanted = MinibatchConfig(batch_size=size, sampling=config.sampling if size else "epochs")
    return minibatches(oracle.cohort, wanted, training, exchange.client_ids, again=count > 1)


def _in_parts(
    exchange: Exchange, oracle: Oracle, config: AnchorConfig, gradients: Gradients
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 1"]]:
    """Return the gradient of the batch and the variance of one example's, from J parts."""
    if not hasattr(oracle.cohort, "sizes"):
        raise ConfigError(
            "strategy.norm_test needs objectives over examples, or client.gradient=zeroth_order;"
            " set it to 0"
        )
    x, count = start_points(exchange), take_config(AnchorTask, exchange.config).micro_batches
    whole = config.anchor_batch_size == 0
    size = _BESIDE if whole else max(1, config.anchor_batch_size // count)
    batches = _parts(exchange, oracle, config, size, count)
    assert batches is not None
    found = torch.stack([gradients.tell([x], batches[:, j], 0)[0] for j in range(count)])
    mean = found.mean(dim=0)
    spread = (found - mean).square().sum(dim=(0, 2)) / (count - 1)
    told = gradients.tell([x], None, 0)[0] if whole else mean
    return told, (size * spread).unsqueeze(1)


def _of_directions(slopes: Float[Tensor, "n m"], dim: int) -> Float[Tensor, "n 1"]:
    missing = 1 - slopes.shape[1] / dim
    return missing * dim * dim * slopes.square().mean(dim=1, keepdim=True)

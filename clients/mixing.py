"""A node's half of an exchange of models between peers: trust those who are near, and average.

    train.mix: models [m, d], heard [n, m], own [n]  ->  model [n, d], or nothing
    x_i <- rule(x_i, those of the models that node i has heard)

With `nearest_neighbor_average` and num_byzantine = f this is MoNNA (Farhadkhani et al., ICML 2023,
algorithm 1, step 5): of k models heard, its own included, the k - f nearest are averaged. Then all
nodes together are two matrix products; with any other rule of fedzo.aggregation each node calls the
rule in turn, its own model first, which is also where centered clipping starts (self-centered
clipping: He, Karimireddy & Jaggi, arXiv 2202.01545). Cost: n m d. Sent: m d floats down, d up.

A peer may tell every node something else: `lies` [n, l, d], with the positions `liars` [n, l], then
stand in for those rows of `models`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clients.momentum import MODEL
from fedzo.aggregation import parse_aggregator
from fedzo.aggregation.distances import distances_between
from fedzo.aggregation.nearest_neighbors import neighbor_weights
from fedzo.aggregation.rows import finite_rows
from fedzo.config import take_config
from fedzo.errors import ConfigError
from fedzo.exchange import ClientState, Exchange
from fedzo.oracle import Oracle
from fedzo.randomness import stream


@dataclass(frozen=True, slots=True, kw_only=True)
class MixingTask:
    """What the strategy says: the rule, how many liars it must bear, whether to send the result."""

    aggregator: str
    num_byzantine: int
    report: bool = True
    seed: int = 0
    round_index: int = 0
    exchange_index: int = 0
    problem: int = 0


def mix_models(
    exchange: Exchange, _oracle: Oracle, states: Sequence[ClientState]
) -> tuple[dict[str, Tensor], Sequence[ClientState]]:
    """Mix every client's own model with what it has heard, and keep the result."""
    task = take_config(MixingTask, exchange.config)
    own = torch.stack([state[MODEL] for state in states])
    near = task.aggregator == "nearest_neighbor_average"
    mixed = _all_at_once(exchange, own, task) if near else _one_by_one(exchange, own, task)
    after = [{**state, MODEL: row} for state, row in zip(states, mixed, strict=True)]
    return {"model": mixed if task.report else mixed[:, :0]}, after


def _all_at_once(
    exchange: Exchange, own: Float[Tensor, "n d"], task: MixingTask
) -> Float[Tensor, "n d"]:
    """Average the nearest for all nodes together: columns are models, the own one, and lies."""
    models, heard, lies = _heard(exchange, own)
    finite = finite_rows(models)
    models = models.where(finite.unsqueeze(1), 0)
    squares = distances_between(own, models).where(heard & finite, torch.inf)
    nothing = squares.new_full((len(own), 1), -1)
    told = (lies - own.unsqueeze(1)).square().sum(dim=2).double()
    told = told.nan_to_num(torch.inf, torch.inf, torch.inf)
    everything = torch.cat([nothing, squares, told], dim=1)
    counts = torch.isfinite(everything).sum(dim=1)
    kept = 1 + heard.sum(dim=1) + lies.shape[1] - task.num_byzantine
    weights = torch.cat(
        [
            neighbor_weights(row.unsqueeze(0), max(1, int(min(count, keep))))
            for row, count, keep in zip(everything, counts, kept, strict=True)
        ]
    ).to(own)
    of_own, of_models, of_lies = weights.split([1, len(models), lies.shape[1]], dim=1)
    result: Tensor = of_own * own + of_models @ models
    if lies.shape[1]:
        result = result + (of_lies.unsqueeze(1) @ lies.nan_to_num(0, 0, 0)).squeeze(1)
    return result


def _one_by_one(
    exchange: Exchange, own: Float[Tensor, "n d"], task: MixingTask
) -> Float[Tensor, "n d"]:
    models, heard, lies = _heard(exchange, own)
    rule = parse_aggregator(task.aggregator)
    where = (task.problem, task.round_index, task.exchange_index)
    rows = []
    for i, client in enumerate(exchange.client_ids):
        vectors = torch.cat([own[i : i + 1], models[heard[i]], lies[i]])
        random = stream(task.seed, "mixing", *where, client)
        try:
            mixed = rule(vectors, num_byzantine=task.num_byzantine, generator=random, start=own[i])
        except ConfigError:  # too few of what this node has heard can be used
            mixed = own[i]
        rows.append(mixed)
    return torch.stack(rows)


def _heard(
    exchange: Exchange, own: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "m d"], Bool[Tensor, "n m"], Float[Tensor, "n l d"]]:
    """Return the models, who has heard which of the others', and what each was told instead.

    Neither its own, nor one that told it something else instead.
    """
    models, heard = exchange.shared["models"], exchange.per_client["heard"].bool().clone()
    heard.scatter_(1, exchange.per_client["own"].unsqueeze(1), value=False)
    if "liars" in exchange.per_client:
        heard.scatter_(1, exchange.per_client["liars"], value=False)
    lies = exchange.per_client.get("lies", own.new_empty(len(own), 0, own.shape[1]))
    return models, heard, lies.to(own)

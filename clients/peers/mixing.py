"""A node's half of an exchange of models between peers: trust those who are near, and average.

    train.mix: models [m, d], heard [n, m], own [n]  ->  model [n, d], or nothing
    x_i <- rule(x_i, those of the models that node i has heard)

With `nearest_neighbor_average` and num_byzantine = f this is MoNNA (Farhadkhani et al., ICML 2023,
algorithm 1, step 5): of k models heard, its own included, the k - f nearest are averaged. Then all
nodes together are two matrix products; with any other rule of fedzo.aggregation each node calls the
rule in turn, its own model first, which is also where centered clipping starts (self-centered
clipping: He, Karimireddy & Jaggi, arXiv 2202.01545). What comes out is projected onto the box of x,
which liars, and local steps, leave. Cost: n m d. Sent: m d floats down, d up.

A peer may tell every node something else: `lies` [n, l, d], with the positions `liars` [n, l], then
stand in for those rows of `models`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clients.averaging.momentum import MODEL
from fedzo.aggregation import parse_aggregator
from fedzo.aggregation.distances import distances_between
from fedzo.aggregation.nearest_neighbors import neighbor_weights
from fedzo.aggregation.rows import finite_rows
from fedzo.errors import ConfigError
from fedzo.protocol.questions.peers import Mix, Model
from fedzo.runtime.local import Answered, Clients


def mix_models(question: Mix, clients: Clients) -> Answered:
    """Mix every client's own model with what it has heard, and keep the result."""
    own = torch.stack([state[MODEL] for state in clients.states])
    near = question.aggregator == "nearest_neighbor_average"
    mixed = _all_at_once(question, own) if near else _one_by_one(question, clients, own)
    mixed = clients.oracle.project(mixed)
    after = [{**state, MODEL: row} for state, row in zip(clients.states, mixed, strict=True)]
    return Model(model=mixed if question.report else mixed[:, :0]), after


def _all_at_once(question: Mix, own: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Average the nearest for all nodes together: columns are models, the own one, and lies."""
    models, heard, lies = _heard(question, own)
    finite = finite_rows(models)
    models = models.where(finite.unsqueeze(1), 0)
    squares = distances_between(own, models).where(heard & finite, torch.inf)
    nothing = squares.new_full((len(own), 1), -1)
    told = (lies - own.unsqueeze(1)).square().sum(dim=2).double()
    told = told.nan_to_num(torch.inf, torch.inf, torch.inf)
    everything = torch.cat([nothing, squares, told], dim=1)
    counts = torch.isfinite(everything).sum(dim=1)
    kept = 1 + heard.sum(dim=1) + lies.shape[1] - question.num_byzantine
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


def _one_by_one(question: Mix, clients: Clients, own: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    models, heard, lies = _heard(question, own)
    rule, f = parse_aggregator(question.aggregator), question.num_byzantine
    rows = []
    for i, client in enumerate(clients.ids):
        vectors = torch.cat([own[i : i + 1], models[heard[i]], lies[i]])
        random = clients.moment.stream(clients.seed, "mixing", client)
        try:
            mixed = rule(vectors, num_byzantine=f, generator=random, start=own[i])
        except ConfigError:  # too few of what this node has heard can be used
            mixed = own[i]
        rows.append(mixed)
    return torch.stack(rows)


def _heard(
    question: Mix, own: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "m d"], Bool[Tensor, "n m"], Float[Tensor, "n l d"]]:
    """Return the models, who has heard which of the others', and what each was told instead.

    Neither its own, nor one that told it something else instead.
    """
    heard = question.heard.bool().clone()
    heard.scatter_(1, question.own.unsqueeze(1), value=False)
    if question.liars is not None:
        heard.scatter_(1, question.liars, value=False)
    none = own.new_empty(len(own), 0, own.shape[1])
    lies = none if question.lies is None else question.lies.to(own)
    return question.models, heard, lies

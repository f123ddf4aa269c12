"""Clients' vectors made small, and what was lost of them kept for the next time.

    p_i = v_i + e_i,   what is sent is C(p_i),   e_i <- p_i - decode(C(p_i))

Seide et al., "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed
Training of Speech DNNs", Interspeech 2014; Karimireddy et al., ICML 2019, algorithm 1. The residual
e_i [d] stands among what the client remembers, by question and name, in float64, or in 4 bits as
in Modoranu et al., "MicroAdam", NeurIPS 2024. Differs from the latter: rounded to the nearest of a
block's steps, which are symmetric. A vector that is not finite leaves the residual as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fedzo.compression.compressor import Compressor
from fedzo.compression.integer import Integer
from fedzo.protocol.exchange import ClientState, Exchange, Moment, Replies
from fedzo.protocol.packing import WIRE, part_name
from fedzo.protocol.question import Question
from fedzo.randomness import uniform_rows

_SMALL = Integer(4, "nearest", 64)
"""How a residual is kept in 4 bits."""


def pack_replies(
    exchange: Exchange, replies: Replies, states: Sequence[ClientState]
) -> tuple[Replies, list[ClientState]]:
    """Return the replies with vectors packed, and what each client now remembers of the loss.

    states: what they remembered before. Who failed remembers that still.
    """
    assert exchange.up is not None, "nobody packs without a scheme"
    if not len(replies.client_ids):
        return replies, list(states)
    places = {client: i for i, client in enumerate(exchange.client_ids)}
    rows = [places[client] for client in replies.client_ids]
    owing = [states[row] for row in rows]
    kept: list[ClientState] = list(states)
    told: dict[str, Tensor] = {}
    for name, tensor in replies.tensors.items():
        if not _is_vectors(exchange.question, name, tensor):
            told[name] = tensor
            continue
        key = f"{WIRE}{exchange.kind}/{name}"
        owes = exchange.up.feedback and name not in exchange.question.replaced
        parts, after = _packed(exchange, replies.client_ids, tensor, key, owing if owes else None)
        told.update({part_name(name, part): value for part, value in parts.items()})
        for row, found in zip(rows, after, strict=True):
            kept[row] = {**kept[row], **found}
    return replace(replies, tensors=told), kept


def drawn(
    compressor: Compressor,
    rows: Float[Tensor, "n d"],
    *,
    seed: int,
    moment: Moment,
    name: str,
    clients: Sequence[int],
) -> Float[Tensor, "n d"] | None:
    """Return a uniform number for each element of clients' vectors, None without draws."""
    if not compressor.draws:
        return None
    key = ("compression", name, *moment.parts)
    found = uniform_rows(seed, *key, clients=clients, size=rows.shape[1])
    return torch.from_numpy(found).to(rows.device)


def _is_vectors(question: Question[Any], name: str, tensor: Tensor) -> bool:
    fits = tensor.dim() == 2 and tensor.shape[1] > 0 and tensor.is_floating_point()
    return name in question.vectors_up and fits


def _packed(
    exchange: Exchange,
    clients: Sequence[int],
    tensor: Float[Tensor, "n d"],
    key: str,
    states: Sequence[ClientState] | None,
) -> tuple[dict[str, Tensor], list[ClientState]]:
    """Return the parts of vectors, and the residuals' entries of their senders.

    states: what these remember, None where there is no feedback.
    """
    scheme, dim = exchange.up, tensor.shape[1]
    assert scheme is not None, "nobody packs without a scheme"
    compressor, seed, moment = scheme.compressor, exchange.seed, exchange.moment
    uniforms = drawn(compressor, tensor, seed=seed, moment=moment, name=key, clients=clients)
    if states is None:
        return compressor.encode(tensor, uniforms), [{} for _ in clients]
    total = tensor.double() + torch.stack([_residual(state, key, tensor[0]) for state in states])
    parts = compressor.encode(total, uniforms)
    left = total - compressor.decode(parts, dim)
    sound = left.isfinite().all(dim=1).tolist()
    if scheme.residual == "full":
        rows: list[ClientState] = [{key: row} for row in left]
    else:
        small = _SMALL.encode(left, None)
        rows = [
            {part_name(key, name): value[i] for name, value in small.items()}
            for i in range(len(left))
        ]
    return parts, [row if fine else {} for row, fine in zip(rows, sound, strict=True)]


def _residual(state: Mapping[str, Tensor], key: str, like: Tensor) -> Float64[Tensor, " d"]:
    """Return what a client still owes, zeros at first."""
    if key in state:
        return state[key].to(like.device)
    names = {name: part_name(key, name) for name in _SMALL.forms(len(like))}
    if not all(name in state for name in names.values()):
        return torch.zeros_like(like, dtype=torch.float64)
    parts = {name: state[stored].unsqueeze(0).to(like.device) for name, stored in names.items()}
    return _SMALL.decode(parts, len(like))[0].double()

"""Malicious clients as an engine: it sees the honest answers and replaces those of its own clients.

So attacks work with every strategy, rule and engine, and none of them knows. The attacker is
omniscient: of every exchange it knows all honest answers, and the rule that will meet its lies.
Judging ("evaluate") is left alone, so that what is reported of x is true. Between peers
(`train.mix`) its messages always come in time, and it may tell different receivers different
things. Flipped labels are a flag in the exchange, on which the liars' own machines act. Where only
liars are asked, or answer, there is nobody to deviate from, and they behave.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fedzo.bases import Blocks
from fedzo.byzantine import ByzantineConfig, MimicMemory, Rule, learn_mimic, make_lies
from fedzo.exchange import ClientState, Exchange, Replies, join_replies
from fedzo.randomness import stream
from fedzo.runtime.engine import Engine, Middleware

SLOPES_OF_OWN = {
    "query.anchor": "anchor_directions",
    "query.difference": "anchor_directions",
    "train.miner": "num_directions",
}
"""Kinds whose slopes are along directions of each client's own, and the setting of how many."""
ATTACKER = -1
"""Under this number the attacker's memory stands among the clients' states."""


class Byzantine(Middleware):
    """An engine whose clients `liars` are malicious.

    rule: the defence as the attacker knows it, for the attacks that search.
    """

    def __init__(
        self,
        inner: Engine,
        config: ByzantineConfig,
        liars: Sequence[int],
        *,
        seed: int,
        rule: Rule | None = None,
    ) -> None:
        super().__init__(inner)
        self._config = config
        self._liars = frozenset(liars)
        self._seed = seed
        self._rule = rule
        self._memories: dict[str, MimicMemory] = {}

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        asked = [self._rigged(exchange) for exchange in exchanges]
        received = iter(
            self._inner.perform([e for group in asked for e in group], timeout_s=timeout_s)
        )
        joined = [join_replies([next(received) for _ in group]) for group in asked]
        return [self._spoilt(e, r) for e, r in zip(exchanges, joined, strict=True)]

    def client_states(self) -> Mapping[int, ClientState]:
        states = self._inner.client_states()
        if not self._memories:
            return states
        memory = {
            f"{name}/{part}": getattr(known, part) if part != "seen" else torch.tensor(known.seen)
            for name, known in self._memories.items()
            for part in ("mean", "axis", "seen")
        }
        return {**states, ATTACKER: memory}

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        memory = states.get(ATTACKER, {})
        names = {key.rpartition("/")[0] for key in memory}
        self._memories = {
            name: MimicMemory(
                memory[f"{name}/mean"], memory[f"{name}/axis"], int(memory[f"{name}/seen"])
            )
            for name in names
        }
        self._inner.restore_client_states({c: s for c, s in states.items() if c != ATTACKER})

    def _rigged(self, exchange: Exchange) -> list[Exchange]:
        """Return what is really asked: liars work on flipped labels, and are heard by all peers."""
        lying = self._lying(exchange.client_ids)
        if exchange.kind == "train.mix":
            return [self._told(exchange)]
        if self._config.attack != "label_flip" or exchange.kind == "evaluate" or not lying.any():
            return [exchange]
        flipped = exchange.select(lying.nonzero().flatten().tolist())
        flipped = replace(flipped, config={**flipped.config, "flip_labels": True})
        if lying.all():
            return [flipped]
        return [exchange.select((~lying).nonzero().flatten().tolist()), flipped]

    def _told(self, exchange: Exchange) -> Exchange:
        """Return a mixing in which every node hears every liar, and perhaps not all the same."""
        heard, models = exchange.per_client["heard"], exchange.shared["models"]
        own = exchange.per_client["own"]
        ids = torch.full((len(models),), -1)
        ids[own] = torch.as_tensor(exchange.client_ids)
        lying = self._lying(ids.tolist())
        if self._config.attack == "label_flip" or not lying.any():
            return exchange
        given = {**exchange.per_client, "heard": _hear(heard.bool(), own, lying).to(heard)}
        if self._config.receivers == "opposite" and not lying.all():
            positions = lying.nonzero().flatten()
            known = ~lying & (ids >= 0)
            mean = models[known if known.any() else ~lying].mean(dim=0)
            mirrored = 2 * mean - models[positions]
            second = torch.arange(len(own)) % 2 == 1
            given["liars"] = positions.expand(len(own), -1).clone()
            given["lies"] = torch.stack(
                [mirrored if other else models[positions] for other in second.tolist()]
            )
        return replace(exchange, per_client=given)

    def _spoilt(self, exchange: Exchange, replies: Replies) -> Replies:
        """Return the replies with the liars' tensors replaced."""
        lying = self._lying(replies.client_ids)
        if exchange.kind == "evaluate" or self._config.attack == "label_flip" or not lying.any():
            return replies
        if lying.all():
            return replies
        spoilt = {
            name: self._spoken(exchange, replies, name, lying)
            if tensor.is_floating_point() and tensor[0].numel()
            else tensor
            for name, tensor in replies.tensors.items()
        }
        return replace(replies, tensors=spoilt)

    def _spoken(
        self, exchange: Exchange, replies: Replies, name: str, lying: Bool[Tensor, " n"]
    ) -> Tensor:
        """Return a tensor with its lies; where it is slopes along own directions, lie of vectors.

        Clients' slopes along different directions have nothing in common, but what they stand for
        has; a liar then says what an honest client with that gradient would.
        """
        tensor = replies.tensors[name]
        if name != "slopes" or exchange.kind not in SLOPES_OF_OWN:
            return self._lied(exchange, name, tensor, lying)
        key = SLOPES_OF_OWN[exchange.kind]
        dim = len(exchange.shared["x"])
        every = exchange.config.get("estimator") == "coordinate"
        wanted = dim if every else int(exchange.config[key])
        seed, problem = (int(exchange.config.get(part, 0)) for part in ("seed", "problem"))
        blocks = Blocks(dim, wanted, seed, problem)
        place = {client: i for i, client in enumerate(exchange.client_ids)}
        rows = exchange.per_client["first_row"][[place[c] for c in replies.client_ids]]
        first = 1 if exchange.kind == "train.miner" else 0
        parts = list(enumerate(tensor.split(blocks.size, dim=1), start=first))
        vectors = torch.stack([blocks.combine(part, rows, k) for k, part in parts], dim=1)
        lies = self._lied(exchange, name, vectors, lying).nan_to_num(0.0)
        said = torch.cat([blocks.project(lies[:, i], rows, k) for i, (k, _) in enumerate(parts)], 1)
        return tensor.where(~lying.unsqueeze(1), said.to(tensor))

    def _lied(
        self, exchange: Exchange, name: str, tensor: Tensor, lying: Bool[Tensor, " n"]
    ) -> Tensor:
        flat = tensor.flatten(1)
        honest, count = flat[~lying], int(lying.sum())
        where = ("problem", "round_index", "exchange_index")
        parts = [int(exchange.config.get(part, 0)) for part in where]
        generator = stream(self._seed, "byzantine", name, *parts)
        memory = None
        if self._config.attack == "mimic_learned":
            width = honest.shape[1]
            key = f"{exchange.kind}/{name}/{exchange.config.get('problem', 0)}/{width}"
            memory = self._memories.get(key)
            self._memories[key] = learn_mimic(memory, honest, generator=generator)
        lies = make_lies(
            self._config,
            honest,
            count,
            generator=generator,
            rule=self._rule,
            memory=memory,
        )
        result = flat.clone()
        result[lying] = lies.to(flat)
        return result.reshape(tensor.shape)

    def _lying(self, clients: Sequence[int]) -> Bool[Tensor, " n"]:
        return torch.tensor([client in self._liars for client in clients], dtype=torch.bool)


def _hear(
    heard: Bool[Tensor, "n m"], own: Int[Tensor, " n"], lying: Bool[Tensor, " m"]
) -> Bool[Tensor, "n m"]:
    """Return who hears whom when liars come first: for each one more, an honest one is late."""
    fresh = heard | lying
    excess = fresh.sum(dim=1) - heard.sum(dim=1)
    honest = heard & ~lying
    honest[torch.arange(len(own)), own] = False
    turn = honest.cumsum(dim=1)
    return fresh & ~(honest & (turn <= excess.unsqueeze(1)))

"""Malicious clients as an engine: it sees the honest answers and replaces those of its own clients.

So liars work with every strategy, rule and engine, and none of them knows. They are omniscient: of
every exchange they know all honest answers, and the aggregator that will meet their lies. Judging
is left alone, so that what is reported of x is true. Between peers (`Mix`) their messages always
come in time, and they may tell different receivers different things. Flipped labels are a flag in
the exchange, on which the liars' own machines act. Where only liars are asked, or answer, there is
nobody to deviate from, and they behave. In waves (fedzo.protocol.wave) answers come one by one or
few at a time: liars then know the last answer of every honest client, however old.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from fedzo.adversary.lies import ByzantineConfig, Defend, MimicMemory, learn_mimic, make_lies
from fedzo.compression.scheme import Scheme, pressed
from fedzo.protocol.exchange import ClientState, Exchange, Replies, join_replies
from fedzo.randomness import stream
from fedzo.runtime.engine import Engine, Middleware

LIARS = -1
"""Under this number the liars' memory stands among the clients' states."""


class Byzantine(Middleware):
    """An engine whose clients `liars` are malicious.

    defend: what the strategy makes of vectors, as liars know it, for the lies that are searched.
    up: how vectors are packed: a lie is one that a packed message can tell. at_work: how many
    clients work at a time in waves, 0 without waves.
    """

    def __init__(
        self,
        inner: Engine,
        config: ByzantineConfig,
        liars: Sequence[int],
        *,
        seed: int,
        defend: Defend | None = None,
        up: Scheme | None = None,
        at_work: int = 0,
    ) -> None:
        super().__init__(inner)
        self._config = config
        self._liars = frozenset(liars)
        self._seed = seed
        self._defend, self._up = defend, up
        self._memories: dict[str, MimicMemory] = {}
        self._at_work = at_work
        self._last: dict[str, dict[int, Tensor]] = {}

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        asked = [self._rigged(exchange) for exchange in exchanges]
        received = iter(
            self._inner.perform([e for group in asked for e in group], timeout_s=timeout_s)
        )
        joined = [join_replies([next(received) for _ in group]) for group in asked]
        return [self._spoilt(e, r) for e, r in zip(exchanges, joined, strict=True)]

    def begin(self, exchange: Exchange, *, timeout_s: float) -> Sequence[int]:
        begun: list[int] = []
        for asked in self._rigged(exchange):
            begun += super().begin(asked, timeout_s=timeout_s)
        return begun

    def client_states(self) -> Mapping[int, ClientState]:
        states = self._inner.client_states()
        memory = {
            f"{name}/{part}": getattr(known, part) if part != "seen" else torch.tensor(known.seen)
            for name, known in self._memories.items()
            for part in ("mean", "axis", "seen")
        }
        for name, last in self._last.items():
            memory[f"{name}/whose"] = torch.tensor([*last])
            memory[f"{name}/last"] = torch.stack([*last.values()])
        return {**states, LIARS: memory} if memory else states

    def restore_client_states(self, states: Mapping[int, ClientState]) -> None:
        memory = states.get(LIARS, {})
        names = {key.rpartition("/")[0] for key in memory if key.endswith("/mean")}
        self._last = {
            key.rpartition("/")[0]: dict(
                zip(memory[key].tolist(), memory[f"{key.rpartition('/')[0]}/last"], strict=True)
            )
            for key in memory
            if key.endswith("/whose")
        }
        self._memories = {
            name: MimicMemory(
                memory[f"{name}/mean"], memory[f"{name}/axis"], int(memory[f"{name}/seen"])
            )
            for name in names
        }
        self._inner.restore_client_states({c: s for c, s in states.items() if c != LIARS})

    def _rigged(self, exchange: Exchange) -> list[Exchange]:
        """Return what is really asked: liars work on flipped labels, and are heard by all peers."""
        lying, question = self._lying(exchange.client_ids), exchange.question
        flipping = self._config.attack == "label_flip"
        opposite = self._config.receivers == "opposite"
        told = question.told_by_liars(exchange.client_ids, self._liars, opposite=opposite)
        if told is not None:
            return [exchange if flipping else replace(exchange, question=told)]
        if flipping and not question.judges and lying.any():
            flipped = exchange.select(lying.nonzero().flatten().tolist())
            flipped = replace(flipped, poisoned=True)
            if lying.all():
                return [flipped]
            return [exchange.select((~lying).nonzero().flatten().tolist()), flipped]
        return [exchange]

    def _spoilt(self, exchange: Exchange, replies: Replies) -> Replies:
        """Return the replies with the liars' tensors replaced."""
        lying = self._lying(replies.client_ids)
        if exchange.question.judges or self._config.attack == "label_flip" or not len(lying):
            return replies
        if not self._at_work and (lying.all() or not lying.any()):
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
        tensor, moment = replies.tensors[name], exchange.moment
        along = exchange.question.along(name, seed=exchange.seed, problem=moment.problem)
        ids = replies.client_ids
        if along is None:
            return self._lied(exchange, ids, name, tensor, lying)
        place = {client: i for i, client in enumerate(exchange.client_ids)}
        along = along.select(torch.tensor([place[client] for client in replies.client_ids]))
        lies = self._lied(exchange, ids, name, along.vectors(tensor), lying).nan_to_num(0.0)
        return tensor.where(~lying.unsqueeze(1), along.slopes(lies).to(tensor))

    def _lied(
        self,
        exchange: Exchange,
        ids: Sequence[int],
        name: str,
        tensor: Tensor,
        lying: Bool[Tensor, " n"],
    ) -> Tensor:
        flat, moment = tensor.flatten(1), exchange.moment
        key = f"{exchange.kind}/{name}/{moment.problem}/{flat.shape[1]}"
        together = not 0 < len(exchange.client_ids) < self._at_work
        honest, count = flat[~lying], int(lying.sum())
        if self._at_work:
            known = self._known(key, ids, flat, lying)
            honest = honest if together else known
        if not count or not len(honest):
            return tensor
        alone = [] if together else list(ids)  # of several in a round
        generator = stream(self._seed, "byzantine", name, *moment.parts, *alone)
        memory = None
        if self._config.attack == "mimic_learned":
            memory = self._memories.get(key)
            self._memories[key] = learn_mimic(memory, honest, generator=generator)
        lies = make_lies(
            self._config,
            honest,
            count,
            generator=generator,
            defend=self._defend,
            memory=memory,
        )
        if self._up is not None and name in exchange.question.vectors_up:
            lies = pressed(self._up, lies, generator)
        result = flat.clone()
        result[lying] = lies.to(flat)
        return result.reshape(tensor.shape)

    def _known(
        self, key: str, ids: Sequence[int], flat: Tensor, lying: Bool[Tensor, " n"]
    ) -> Tensor:
        """Return the last answer of every honest client, those of this exchange among them."""
        rows = zip(ids, flat, lying.tolist(), strict=True)
        fresh = {client: row.clone() for client, row, lies in rows if not lies}
        last = {**self._last.get(key, {}), **fresh}
        if last:
            self._last[key] = dict(sorted(last.items()))
        return torch.stack([*self._last[key].values()]) if last else flat[:0]

    def _lying(self, clients: Sequence[int]) -> Bool[Tensor, " n"]:
        return torch.tensor([client in self._liars for client in clients], dtype=torch.bool)

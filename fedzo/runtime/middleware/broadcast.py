"""What the server remembers so that x goes down as its changes.

    view_t = view_(t-1) + decode(C(x_t - view_(t-1)))

All clients that are up to date have the same view, and work on that; what a change has lost is in
the next one. Who has missed some gets them all, or the view whole where that is fewer bytes; who
has failed to answer gets it whole, for nobody knows what it has. Tang et al., "DoubleSqueeze", ICML
2019, which keeps an error at the server instead; all clients of theirs take part in every round.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.compression.scheme import Scheme
from fedzo.protocol.exchange import Exchange
from fedzo.protocol.packing import NOBODYS, Down
from fedzo.runtime.feedback import drawn


class Broadcast:
    """One vector, such as x, as the clients of a problem have it."""

    def __init__(self, name: str, scheme: Scheme) -> None:
        self._name, self._scheme = name, scheme
        self.view = torch.empty(0)
        self._told = torch.empty(0)
        self._when: tuple[int, ...] = ()
        self._version = 0
        self._changes: dict[int, Mapping[str, Tensor]] = {}
        self._since: dict[int, int] = {}

    def down(self, x: Float[Tensor, " d"], exchange: Exchange) -> Down:
        """Return how x goes to the clients of an exchange; `view` is what they then have.

        Exchanges of one moment that tell the same x are told the same change.
        """
        now = exchange.moment.parts
        if x.shape != self.view.shape or x.dtype != self.view.dtype or now[:1] != self._when[:1]:
            self.view, self._version, self._changes, self._since = x, 0, {}, {}
        elif now != self._when or not torch.equal(x, self._told):
            self._change(x, exchange)
        self._when, self._told = now, x
        since = [self._known(client) for client in exchange.client_ids]
        return Down(self._scheme, self._version, since, dict(self._changes))

    def heard(self, down: Down, answered: Sequence[int], failed: Sequence[int]) -> None:
        """Take note of who has now which version."""
        self._since.update(dict.fromkeys(answered, down.version))
        self.forget(failed)

    def forget(self, client_ids: Sequence[int]) -> None:
        """Take note that nobody knows what these clients have."""
        for client in client_ids:
            self._since.pop(client, None)

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it as tensors."""
        since = sorted(self._since.items())
        changes = {f"{v}/{n}": t for v, parts in self._changes.items() for n, t in parts.items()}
        return {
            "view": self.view,
            "told": self._told,
            "when": torch.tensor(self._when, dtype=torch.int64),
            "version": torch.tensor(self._version),
            "since": torch.tensor(since, dtype=torch.int64).reshape(-1, 2),
            **{f"change/{name}": tensor for name, tensor in changes.items()},
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        self.view, self._told = tensors["view"], tensors["told"]
        self._when = tuple(tensors["when"].tolist())
        self._version = int(tensors["version"])
        self._since = {client: version for client, version in tensors["since"].tolist()}
        found: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("change/"):
                _, version, part = name.split("/")
                found.setdefault(int(version), {})[part] = tensor
        self._changes = {version: found[version] for version in sorted(found)}

    def _change(self, x: Float[Tensor, " d"], exchange: Exchange) -> None:
        """Bring the view nearer to x; changes that are no use any more are forgotten."""
        compressor, row = self._scheme.compressor, (x - self.view).unsqueeze(0)
        uniforms = drawn(
            compressor,
            row,
            seed=exchange.seed,
            moment=exchange.moment,
            name=f"down/{self._name}",
            clients=[0],
        )
        parts = compressor.encode(row, uniforms)
        self.view = self.view + compressor.decode(parts, len(x))[0].to(x)
        self._version += 1
        self._changes[self._version] = parts
        size = sum(tensor.numel() * tensor.element_size() for tensor in parts.values())
        kept = (x.numel() * x.element_size() - 1) // size
        oldest = self._version - max(0, kept)
        self._changes = {v: told for v, told in self._changes.items() if v > oldest}

    def _known(self, client: int) -> int:
        """Return the version that a client has, where changes from there are at hand."""
        since = self._since.get(client, NOBODYS)
        usable = since == self._version or since + 1 in self._changes
        return since if usable else NOBODYS

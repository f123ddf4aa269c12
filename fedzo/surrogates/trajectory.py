"""The queries that clients have made: what surrogates are fitted on, in bounded memory.

A trajectory holds the newest `capacity` points of each client with their values, padded to a common
length. A point that is asked again replaces its old value instead of making a second, linearly
dependent row. Shapes: points [n, p, d], values [n, p], count [n]. A nearest selection costs n p d.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedzo.surrogates.gp import Observations

Kept = Mapping[str, Tensor]
"""What a client remembers, by name."""
_FINGERPRINT = 4
"""Coordinates that are compared before whole points are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Points and values of n clients; client i's are the first count[i] rows, oldest first."""

    points: Float[Tensor, "n p d"]
    values: Float[Tensor, "n p"]
    count: Int[Tensor, " n"]
    capacity: int

    @property
    def known(self) -> Bool[Tensor, "n p"]:
        """Which rows hold a query."""
        places = torch.arange(self.points.shape[1], device=self.points.device)
        return places < self.count.unsqueeze(1)

    def add(self, points: Float[Tensor, "n q d"], values: Float[Tensor, "n q"]) -> "Trajectory":
        """Return the trajectory with q more queries a client; the oldest give way."""
        rows = [self._client(i, points[i].double(), values[i].double()) for i in range(len(points))]
        return _padded([r[0] for r in rows], [r[1] for r in rows], self.capacity)

    def nearest(self, x: Float[Tensor, "n d"], max_points: int) -> Observations:
        """Return the max_points queries of each client that are nearest to its x."""
        far = (self.points - x.unsqueeze(1)).square().sum(-1).masked_fill(~self.known, torch.inf)
        size = min(max_points, self.points.shape[1])
        chosen = far.topk(size, dim=1, largest=False).indices
        wide = chosen.unsqueeze(-1).expand(-1, -1, self.points.shape[-1])
        return Observations(
            points=self.points.gather(1, wide),
            values=self.values.gather(1, chosen),
            known=self.known.gather(1, chosen),
        )

    def save(self, states: Sequence[Kept]) -> list[dict[str, Tensor]]:
        """Return the clients' states with their part of the trajectory in them."""
        sizes = self.count.tolist()
        return [
            {**state, "points": self.points[i, :size], "values": self.values[i, :size]}
            for i, (state, size) in enumerate(zip(states, sizes, strict=True))
        ]

    def _client(
        self, i: int, points: Float[Tensor, "q d"], values: Float[Tensor, " q"]
    ) -> tuple[Float[Tensor, "p d"], Float[Tensor, " p"]]:
        size = int(self.count[i])
        all_points = torch.cat([self.points[i, :size], points])
        all_values = torch.cat([self.values[i, :size], values])
        kept = ~_repeated(all_points, size)
        if not kept.all():
            all_points, all_values = all_points[kept], all_values[kept]
        return all_points[-self.capacity :], all_values[-self.capacity :]


def load_trajectory(
    states: Sequence[Kept], dim: int, capacity: int, *, device: torch.device | str = "cpu"
) -> Trajectory:
    """Return what clients have kept; a new client has nothing."""
    none = torch.empty(0, dim, dtype=torch.float64, device=device)
    points = [state.get("points", none) for state in states]
    values = [state.get("values", none[:, 0]) for state in states]
    return _padded(points, values, capacity)


def _repeated(points: Float[Tensor, "p d"], old: int) -> Bool[Tensor, " p"]:
    """Return which points come again exactly later on, among those after the first `old` ones."""
    probe = slice(None, _FINGERPRINT)
    alike = (points[:, None, probe] == points[None, old:, probe]).all(-1)
    repeated = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for i, j in alike.nonzero().tolist():
        repeated[i] |= i < old + j and torch.equal(points[i], points[old + j])
    return repeated


def _padded(
    points: Sequence[Float[Tensor, "_ d"]], values: Sequence[Float[Tensor, " _"]], capacity: int
) -> Trajectory:
    return Trajectory(
        points=torch.nn.utils.rnn.pad_sequence(list(points), batch_first=True),
        values=torch.nn.utils.rnn.pad_sequence(list(values), batch_first=True),
        count=torch.tensor([len(row) for row in values], device=values[0].device),
        capacity=capacity,
    )

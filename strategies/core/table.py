"""What the server remembers of each client: the last vector that it sent.

So a lost answer is made good by the next, and nobody's memory has to outlive a process of its own.
Memory: d numbers for each client that has answered, none for the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

FirstPass = Literal["full", "zero", "lazy"]
"""What stands for clients that have not answered: nobody is missing, zeros, the mean of others."""


@dataclass(frozen=True, slots=True)
class ClientTable:
    """The last vectors [k, d] of k clients, ascending."""

    clients: Int[Tensor, " k"]
    rows: Float[Tensor, "k d"]

    @staticmethod
    def empty(x: Float[Tensor, " d"]) -> "ClientTable":
        """Return the table of nobody, for vectors like x."""
        return ClientTable(torch.empty(0, dtype=torch.int64), x.new_empty(0, len(x)))

    def renewed(self, clients: Sequence[int], rows: Float[Tensor, "n d"]) -> "ClientTable":
        """Return the table with these clients' rows in the place of their old ones."""
        fresh = torch.as_tensor(clients, dtype=torch.int64)
        kept = ~torch.isin(self.clients, fresh)
        all_clients = torch.cat([self.clients[kept], fresh])
        order = all_clients.argsort()
        return ClientTable(all_clients[order], torch.cat([self.rows[kept], rows])[order])

    def of(self, clients: Sequence[int]) -> Float[Tensor, "n d"]:
        """Return the rows of these clients, zeros for those who have none."""
        wanted = torch.as_tensor(clients, dtype=torch.int64)
        place = torch.searchsorted(self.clients, wanted)
        there = torch.isin(wanted, self.clients)
        found = self.rows.new_zeros(len(wanted), self.rows.shape[1])
        found[there] = self.rows[place[there]]
        return found

    def known(self, init: FirstPass, num_clients: int) -> Float[Tensor, "n d"]:
        """Return the rows that a mean is taken of; zeros stand for the missing unless `lazy`."""
        return self.rows if init == "lazy" else self.everybody(num_clients)

    def everybody(self, num_clients: int) -> Float[Tensor, "n d"]:
        """Return a row for every client, zeros for those who have never answered."""
        unknown = num_clients - len(self.clients)
        return torch.cat([self.rows, self.rows.new_zeros(unknown, self.rows.shape[1])])

"""How much clients differ, from what they say along the same directions.

    own   = mean_ik (s_ik - sbar_k)^2 k / (k - 1) (N - 1) / N,   sbar_k = mean_i s_ik
    total = mean_k sbar_k^2 - own N / (N - 1) (1 / k - 1 / N)
    rho   = own / total = var(h) / var(F),   f_i = F + h_i,  sum_i h_i = 0 over all N clients

Estimates by moments for k of N clients, after each client's mean over directions is taken off: at
probes of finite length that mean holds the curvature, which says nothing of gradients. Shapes:
changes [k, m]. fedzo's own.
"""

from jaxtyping import Float
from torch import Tensor

LARGEST = 1e4


def heterogeneity(changes: Float[Tensor, "k m"], num_clients: int) -> float:
    """Return rho, between 0 and 1e4, from at least two clients and two directions."""
    k, n = len(changes), num_clients
    changes = changes - changes.mean(dim=1, keepdim=True)
    common = changes.mean(dim=0)
    own = float((changes - common).square().mean()) * k / (k - 1) * (n - 1) / n
    if own == 0:
        return 0.0
    total = float(common.square().mean()) - own * n / (n - 1) * (1 / k - 1 / n)
    return own / max(total, own / LARGEST)

"""Where clients probe, made anew at the server from the basis rows that they were told."""

from jaxtyping import Float, Int
from torch import Tensor

from fedzo.estimation.directions import basis_blocks
from fedzo.objectives.oracle import project
from fedzo.surrogates.spatial import SpatialPrior, smooth_directions
from strategies.core.rounds import RoundPlan


def probe_ends(
    x: Float[Tensor, " d"],
    first: Int[Tensor, " b"],
    count: int,
    *,
    length: float,
    space: SpatialPrior,
    plan: RoundPlan,
) -> tuple[Float[Tensor, " d"], Float[Tensor, "r d"]]:
    """Return x and the ends of blocks of `count` probes around it, in the rows' coordinates."""
    x = x.double()
    u = basis_blocks(first, count, len(x), seed=plan.seed, problem=plan.problem).flatten(0, 1)
    u = smooth_directions(u, space.lengthscale)
    ends = project(u.mul_(length).add_(x), plan.lower, plan.upper)
    return space.adjoint(x), space.adjoint(ends)

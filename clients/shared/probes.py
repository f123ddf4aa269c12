"""Answer values around a point, along directions that everybody can make from a seed.

    query.probes:  x [d], first row r_i of each client  ->  values [n, q] at the points of a scheme,
                   or, for `answer = "slopes"`, the m slopes [n, m] that the scheme makes of them
    directions:    rows r_i .. r_i + m - 1 of an endless sequence of random orthonormal bases

Clients with the same first row ask at the same points, so the heterogeneity of their objectives
cancels in the mean of their answers; clients with rows of their own explore n times as many
directions. Server and clients make the directions from (seed, row): only x and one number go down
and q or m numbers up. fedzo's form of the shared seeds of Maritan, Dey & Schenato, "FedZeN", arXiv
2309.17174, and of FedKSeed. Cost: q queries (forward: m + 1, or m without the base; central: 2m).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clients.core.local import require_resolution
from fedzo.estimation.directions import basis_blocks
from fedzo.estimation.schemes import BASE, Differences
from fedzo.protocol.question import no_numbers
from fedzo.protocol.questions.probes import Probed, Probes
from fedzo.runtime.local import Answered, Clients
from fedzo.surrogates.spatial import smooth_directions


def answer_probes(question: Probes, clients: Clients) -> Answered:
    """Ask every client around x along its rows; answers nothing when the budget is too small."""
    x, dim = clients.at(question.x), len(question.x)
    require_resolution(clients, question.x, question.mu, dim**-0.5)
    differences = Differences.named(question.estimator, question.mu)
    points = differences.points(x, _directions(question, clients).to(x))
    has_base = BASE in differences.scheme.offsets(question.num_directions)
    if question.base != has_base and not question.slopes:
        points = points[:, 1:] if has_base else torch.cat([x.unsqueeze(1), points], dim=1)
    enough = clients.oracle.remaining >= points.shape[1]
    if not question.slopes:
        nothing = no_numbers(x, torch.float64)
        return Probed(values=clients.oracle.value(points) if enough else nothing), clients.states
    if not enough:
        return Probed(slopes=no_numbers(x)), clients.states
    slopes = differences.slopes(clients.oracle.value(points), x.dtype)
    return Probed(slopes=slopes), clients.states


def _directions(question: Probes, clients: Clients) -> Float[Tensor, "n m d"]:
    """Return every client's directions."""
    m, dim = question.num_directions, len(question.x)
    key = {"seed": clients.seed, "problem": clients.moment.problem}
    return smooth_directions(basis_blocks(question.first_row, m, dim, **key), question.lengthscale)

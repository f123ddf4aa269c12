"""FZooS against one victim: a derivative GP of the loss, virtual steps on it, and a line search.

    ask delta + r u_j along m orthonormal directions  ->  slopes  ->  posterior of the gradient
    walk downhill on the posterior mean; ask at a few stops of the walk; go to the lowest

The surrogate is fedzo.surrogates.slopes for one client; strategies.surrogate.fzoos_improved is the
same for many. In pixels gradients are smooth (fedzo.surrogates.spatial), and rows are kept in the
white coordinates of that prior. After Shu, Lin, Dai & Low, "Federated Zeroth-Order Optimization
using Trajectory-Informed Surrogate Gradients", arXiv 2308.04077; differs as told there. Shapes: z
[p]. Cost: m queries and one for each stop a round, and once the image itself.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.attacks.attacker import Search, Task, lowest
from fedzo.attacks.coarse import GRID, coarsely, region_searched
from fedzo.attacks.region import require_seen
from fedzo.config import check_types, require, require_nonnegative
from fedzo.estimation.directions import sample_directions
from fedzo.surrogates.descent import StepRule, virtual_steps
from fedzo.surrogates.kernels import KernelName
from fedzo.surrogates.slope_geometry import centered, geometry
from fedzo.surrogates.slope_posterior import SlopePosterior, fit
from fedzo.surrogates.slopes import (
    SlopePrior,
    join_rows,
    no_rows,
    rows_from,
)
from fedzo.surrogates.spatial import SpatialPrior
from fedzo.used_with import UsedWith, one_of

_STOPS = (3, 10)
_IN_PIXELS = one_of("attack.coordinates", "pixels", "tanh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """The attacker `fzoos`.

    probe_radius, initial_step, max_step: root mean square change of a coordinate, in units of the
    radius; max_rows: newest slopes that are kept; lengthscale: over how many pixels gradients are
    smooth, 0 for not at all (where an attack searches in pixels or tanh; waves and blocks have
    their own). grid: most cells of a side; larger images are searched on a grid, and lengthscale is
    in cells.
    """

    num_directions: int = 5
    probe_radius: float = 0.2
    initial_step: float = 0.5
    max_step: float = 1.0
    step_rule: StepRule = "sign"
    kernel: KernelName = "matern52"
    max_rows: int = 300
    lengthscale: float = 1.5
    grid: int = GRID
    USED_WITH: ClassVar[UsedWith] = {
        "lengthscale": _IN_PIXELS,
        "grid": (_IN_PIXELS, one_of("attack.norm", "linf", "l2")),
    }

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("num_directions", "max_rows"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("probe_radius", "initial_step", "max_step"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "positive and finite")
        require_nonnegative("lengthscale", self.lengthscale)
        require(self.grid >= 2, "grid", self.grid, "at least 2")

    def first_step(self, task: Task) -> int:
        """Return the image, the probes, and the first stop of a walk."""
        region = region_searched(replace(task, starts=None), self.grid)
        return 2 + min(self.num_directions, task.coordinates.dim(region))

    def search(self, task: Task) -> Search:
        return coarsely(self._search, replace(task, starts=None), self.grid)

    def _search(self, task: Task) -> Search:
        region, coordinates = task.region, task.coordinates
        dim = coordinates.dim(region)
        reach = region.radius if region.norm == "linf" else 1.0
        if region.norm == "l2":
            reach = region.radius / math.sqrt(dim)
        change = self.probe_radius * reach
        require_seen(change, "probe_radius", self.probe_radius, region.lower.dtype)
        z = coordinates.start(region)
        reply = yield coordinates.perturbations(z.unsqueeze(0), region)
        value = float(reply.losses[0])
        rows, number, at = no_rows(z), 1, 0
        step = self.initial_step * reach
        prior = SlopePrior(kernel=self.kernel, lengthscale=16 * step * math.sqrt(dim))
        space = self._space(task, dim)
        low, high = self._box(task, z, reach)
        m = min(self.num_directions, dim)
        while True:
            u = space.smooth(sample_directions("orthogonal", m, dim, generator=task.generator))
            ends = (z + self.probe_radius * reach * math.sqrt(dim) * u).clamp(low, high)
            reply = yield coordinates.perturbations(ends, region)
            if not math.isfinite(value):
                best = lowest(reply.losses)
                z, value = ends[best], float(reply.losses[best])
                continue
            here = space.adjoint(z)
            ends = space.adjoint(ends)
            moved = reply.losses - value
            fresh = rows_from(here.expand_as(ends), ends, moved, start=at, first_end=number)
            rows = join_rows([rows, fresh], most=self.max_rows)
            number += m
            seen = centered(rows, here)
            grids = _grids(prior, step * math.sqrt(dim))
            posterior = fit(prior, seen, geometry(seen, seen), 1, grids)
            prior = posterior.prior
            path = virtual_steps(
                functools.partial(_gradient, posterior, space),
                z,
                step,
                rule=self.step_rule,
                stops=_STOPS,
                lower=low,
                upper=high,
            )
            reply = yield coordinates.perturbations(path, region)
            stops = space.adjoint(path)
            moved = reply.losses - value
            fresh = rows_from(here.expand_as(stops), stops, moved, start=at, first_end=number)
            rows = join_rows([rows, fresh], most=self.max_rows)
            best = lowest(reply.losses)
            if float(reply.losses[best]) < value:
                z, value, at = path[best], float(reply.losses[best]), number + best
                step = min(self.max_step * reach, 1.5 * step) if best else step / 2
            else:
                step = max(1e-3 * self.initial_step * reach, step / 4)
            number += len(path)

    def _space(self, task: Task, dim: int) -> SpatialPrior:
        """Return the prior on the gradient in the coordinates z: white where they are no image."""
        shape = task.region.shape
        if not self.lengthscale or task.coordinates.basis(shape) is not None:
            return SpatialPrior((1, 1, dim), 0.0)
        return SpatialPrior(shape, self.lengthscale)

    def _box(self, task: Task, z: Tensor, reach: float) -> tuple[Tensor, Tensor]:
        if task.coordinates.name == "pixels":
            region = task.region
            return region.lower.to(z), region.upper.to(z)
        far = 3.0 if task.coordinates.name == "tanh" else max(reach, 1.0)
        return torch.full_like(z, -far), torch.full_like(z, far)


def _gradient(
    posterior: SlopePosterior, space: SpatialPrior, z: Float[Tensor, "q p"]
) -> Float[Tensor, "q p"]:
    """Return the posterior mean at z of a surrogate whose rows are white."""
    return space.color(posterior.gradient(space.adjoint(z)))


def _grids(prior: SlopePrior, unit: float) -> list[tuple[str, list[float]]]:
    lengths = [prior.lengthscale * 2.0**k for k in range(-2, 3)]
    return [
        ("lengthscale", [length for length in lengths if unit / 8 <= length <= 256 * unit]),
        ("noise", [0.0, *(unit**2 * 10.0**k for k in range(-6, 1, 2))]),
    ]

"""Search a large image on a grid of cells: who learns a gradient has one number a cell.

    delta = clamp(U z, lower, upper),   U z repeats z's value all over a cell of each channel

    linf: |U z| = |z|        l2: |U z| = sqrt(height width / cells) |z|, cells of any size alike

A lengthscale in pixels is then one in cells, so relative to the image; rows, samples and factors
cost what they cost on an image of `grid` pixels a side. The box of a cell is the mean of its
pixels'. Shapes: z [p], p = channels cells.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedzo.attacks.attacker import Search, Task
from fedzo.attacks.region import Region, Shape

GRID = 32
"""Cells of a side, at most, unless somebody says otherwise."""


def coarsely(search: Callable[[Task], Search], task: Task, grid: int) -> Search:
    """Search on a grid of so many cells a side; in pixels where the image is no larger.

    And where norms are of pixels (l0, patch), coordinates are few anyway (waves, blocks), or a task
    has starts of its own, which a grid would blur.
    """
    if not _on_cells(task, grid):
        yield from search(task)
        return
    cells = _Cells.of(task.region, grid)
    inside = search(replace(task, region=cells.region))
    asked = next(inside)
    while True:
        reply = yield cells.up(asked)
        try:
            asked = inside.send(reply)
        except StopIteration:
            return


def region_searched(task: Task, grid: int) -> Region:
    """Return where `coarsely` searches."""
    return _Cells.of(task.region, grid).region if _on_cells(task, grid) else task.region


def _on_cells(task: Task, grid: int) -> bool:
    by_pixels = task.region.norm not in ("linf", "l2") or task.starts is not None
    few = task.coordinates.name in ("waves", "blocks")
    return max(task.region.shape[1:]) > grid and not by_pixels and not few


@dataclass(frozen=True, slots=True)
class _Cells:
    """A grid of cells on an image: which row and column of the grid a pixel belongs to."""

    whole: Region
    region: Region
    rows: Int[Tensor, " h"]
    columns: Int[Tensor, " w"]
    scale: Float[Tensor, "1 a b"]

    @classmethod
    def of(cls, whole: Region, grid: int) -> "_Cells":
        channels, height, width = whole.shape
        sides = (min(height, grid), min(width, grid))
        rows, columns = (
            torch.arange(side) * count // side
            for side, count in zip((height, width), sides, strict=True)
        )
        pixels = torch.outer(rows.bincount(), columns.bincount()).to(whole.lower)
        each = height * width / math.prod(sides)
        l2 = whole.norm == "l2"
        scale = (each / pixels).sqrt() if l2 else torch.ones_like(pixels)
        shape: Shape = (channels, *sides)

        def mean(bounds: Float[Tensor, " d"]) -> Float[Tensor, " p"]:
            table = bounds.reshape(channels, height, width)
            total = torch.zeros(channels, sides[0], width).to(bounds).index_add_(1, rows, table)
            sums = torch.zeros(shape).to(bounds).index_add_(2, columns, total)
            return (sums / pixels / scale).reshape(-1)

        radius = whole.radius / math.sqrt(each) if l2 else whole.radius
        region = Region(whole.norm, radius, mean(whole.lower), mean(whole.upper), shape)
        return cls(whole, region, rows, columns, scale.unsqueeze(0))

    def up(self, z: Float[Tensor, "q p"]) -> Float[Tensor, "q d"]:
        """Return perturbations of the image."""
        tables = z.reshape(-1, *self.region.shape) * self.scale.to(z)
        spread: Tensor = tables[:, :, self.rows][:, :, :, self.columns].flatten(1)
        return spread.to(self.whole.lower).clamp(self.whole.lower, self.whole.upper)

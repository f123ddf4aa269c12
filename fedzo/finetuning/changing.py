"""What is made of a gradient before an optimizer sees it: signs, orthogonal factors, subspaces.

    elementwise sign   g_j <- sign g_j                         Liu et al., ICLR 2019 (ZO-signSGD)
    orthogonalized     G = U S V^T  ->  U V^T                   Jordan et al., 2024 (Muon)
    LowVariance        g <- (g - E^T E g) / sqrt((d' + m - 1) / m)
                                                               ZOODiP, CVPR 2025 (2503.14868)

E spans the directions in which the last tau iterates varied, and least: their principal components
without those that explain 1 - nu of their variance. So what they have not tried at all stays, at
least d - tau directions. d' = d - rank E; m: directions that are asked a step. Differs from
ZOODiP's code: iterates are not standardized before the components are taken, because what is
projected is not either; a component without any variance is none.
"""

import math
from collections import deque
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.estimation.structured import matrix_sizes
from fedzo.estimation.view import View
from fedzo.finetuning.variance_reduced import flat

_QUINTIC = (3.4445, -4.7750, 2.0315)


def to_signs(gradients: View) -> None:
    """Replace every number by its sign."""
    for gradient in gradients:
        gradient.sign_()


def orthogonalize(gradients: View) -> None:
    """Replace every matrix by about its orthogonal factor, and any other tensor by its direction.

    Singular values end between 0.7 and 1.2, lower where they are below a hundredth of the largest;
    a tensor that is no matrix gets norm 1.
    """
    for gradient in gradients:
        if gradient.dim() > 1:
            gradient.copy_(
                newton_schulz(gradient.reshape(matrix_sizes(gradient))).view_as(gradient)
            )
        else:
            gradient.div_(gradient.norm().clamp(min=1e-12))


def newton_schulz(matrix: Float[Tensor, "m n"], *, steps: int = 5) -> Float[Tensor, "m n"]:
    """Return about U V^T of a matrix U S V^T; singular values of 0 stay 0."""
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-12)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    factor: Tensor = x.T if tall else x
    return factor


class LowVariance:
    """Takes the directions out of gradients in which the last iterates varied least; scales them.

    view: what is trained. period: tau. kept: 1 - nu, the share of variance that is kept.
    num_directions: of an estimate.
    """

    def __init__(self, view: View, *, period: int, kept: float, num_directions: int) -> None:
        self._view, self._period, self._kept = view, period, kept
        self._m = num_directions
        self._iterates: deque[Float[Tensor, " d"]] = deque(maxlen=period)
        self._count = 0
        self.left_out: Float[Tensor, "r d"] = flat(view).new_empty(0, view.total)
        """The principal components that are taken out: none before the first period is over."""

    def __call__(self, gradients: View) -> None:
        self._iterates.append(flat(self._view))
        self._count += 1
        if self._count % self._period == 0:
            self.left_out = minor(torch.stack(list(self._iterates)), self._kept)
        g = flat(gradients)
        free = sum(tensor.numel() for tensor in gradients.tensors) - len(self.left_out)
        g = g - self.left_out.T @ (self.left_out @ g)
        kept = g / math.sqrt((free + self._m - 1) / self._m)
        for gradient, first in zip(gradients.tensors, gradients.firsts, strict=True):
            gradient.copy_(kept[first : first + gradient.numel()].view_as(gradient))


def minor(rows: Float[Tensor, "t d"], kept: float) -> Float[Tensor, "r d"]:
    """Return the principal components of rows but the fewest that explain this share of variance.

    Directions in which rows do not vary are none of them.
    """
    _, values, components = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    explained = values.square().cumsum(0) / values.square().sum().clamp(min=1e-30)
    first = int((explained < kept).sum()) + 1
    varied = values > values[0] * max(rows.shape) * torch.finfo(values.dtype).eps
    found: Tensor = components[first:][varied[first:]]
    return found


Change = Callable[[View], None]

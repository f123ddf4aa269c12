"""Whether probes are seen: in coarse types, x + mu u may round back to x."""

import warnings

import torch
from torch import Tensor

from fedzo.errors import FedzoWarning
from fedzo.estimation.view import View

_AT_ONCE = 1 << 20
_MOST = 0.9
"""Of a tensor's numbers that may stay where they are, before it is said."""


def warn_of_unseen(view: View, mu: float) -> None:
    """Warn of tensors of which nearly all numbers stay where they are when they are moved by mu."""
    tensors = zip(view.names, view.tensors, strict=True)
    unseen = [name for name, tensor in tensors if share_unseen(tensor, mu) > _MOST]
    if unseen:
        more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
        kind = view.tensors[view.names.index(unseen[0])].dtype
        warnings.warn(
            f"mu={mu:g} is less than half the distance between numbers of {kind} in"
            f" {unseen[0]!r}{more}, so probes do not move them and they are not trained; set a"
            " larger mu, or keep these parameters in float32",
            FedzoWarning,
            stacklevel=3,
        )


def share_unseen(tensor: Tensor, mu: float) -> float:
    """Return the share of numbers that rounding keeps where they are on both sides."""
    unseen = 0
    for held in tensor.detach().flatten().split(_AT_ONCE):
        wide = held.double() if held.dtype == torch.float64 else held.float()
        ends = [(wide + side * mu).to(held.dtype) == held for side in (1, -1)]
        unseen += int((ends[0] & ends[1]).sum())
    return unseen / max(1, tensor.numel())

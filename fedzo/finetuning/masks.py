"""Masks: which numbers of a module take part. True takes part; one byte a number of x.

    random     each number of a matrix with probability `share`
    small      in each tensor the `share` of smallest magnitude (Sparse-MeZO), and all that equal
               the largest of those, so that a tensor of zeros takes part as a whole
    large      in each tensor the `share` of largest magnitude, likewise
    ratios     random, with a share of its own for each tensor (DeepZero)

Liu, Zhu, Gong, Cheng, Hsieh & You, "Sparse MeZO: Less Parameters for Better Performance in
Zeroth-Order LLM Fine-Tuning", 2024 (2402.15751; small); Chen et al., "DeepZero: Scaling up
Zeroth-Order Optimization for Deep Model Training", ICLR 2024 (ratios). Masks are made of
what x is when they are drawn, never of a probed x. Places in x that no tensor of the view has are
False.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from fedzo.config import require
from fedzo.estimation.keys import Key
from fedzo.estimation.view import View

MaskKind = Literal["random", "small", "large"]
_WORDS = 2.0**32


def draw_mask(
    kind: MaskKind, view: View, share: float, *, seed: int, turn: int
) -> Bool[Tensor, " d"]:
    """Return a mask of about `share` of the view's numbers; `turn` numbers the redraws."""
    require(kind in get_args(MaskKind), "mask", kind, f"one of {', '.join(get_args(MaskKind))}")
    require(0 < share <= 1, "share", share, "above 0 and at most 1")
    if kind == "random":
        return random_mask(view, dict.fromkeys(view.names, share), seed=seed, turn=turn)
    mask = torch.zeros(view.total, dtype=torch.bool, device=view.tensors[0].device)
    for tensor, first in zip(view.tensors, view.firsts, strict=True):
        if not tensor.numel():
            continue
        size = tensor.detach().abs().reshape(-1)
        count = max(1, round(share * len(size)))
        edge = size.kthvalue(count if kind == "small" else len(size) - count + 1).values
        mask[first : first + len(size)] = size <= edge if kind == "small" else size >= edge
    return mask


def random_mask(
    view: View, shares: Mapping[str, float], *, seed: int, turn: int
) -> Bool[Tensor, " d"]:
    """Return a random mask with a share of its own for every tensor."""
    device = view.tensors[0].device
    key = Key(seed=seed, parts=("mask", turn))
    mask = torch.zeros(view.total, dtype=torch.bool, device=device)
    for name, tensor, first in zip(view.names, view.tensors, view.firsts, strict=True):
        stop = first + tensor.numel()
        words = key.words(first, stop, device=device).long() + (1 << 31)
        mask[first:stop] = words < shares[name] * _WORDS
    return mask


def part_span(view: View) -> tuple[int, int]:
    """Return the stretch of x in which a view's numbers lie."""
    ends = [f + t.numel() for f, t in zip(view.firsts, view.tensors, strict=True)]
    return view.firsts[0], max(ends)


def part_mask(view: View) -> Bool[Tensor, " d"]:
    """Return the mask of all numbers of a view, which may be a part of a larger one."""
    mask = torch.zeros(view.total, dtype=torch.bool, device=view.tensors[0].device)
    for tensor, first in zip(view.tensors, view.firsts, strict=True):
        mask[first : first + tensor.numel()] = True
    return mask

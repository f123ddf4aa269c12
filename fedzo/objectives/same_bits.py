"""Operations on stacked rows that give each row the bits which it gets alone.

A CPU computes exp, tanh and the like of most numbers of a tensor in vectors and of the last few one
by one, by other formulas; so what a number becomes depends on where it lies, and in a stack of rows
that is on the company. `SameBits` fills tensors up to whole vectors before such an operation. Sums,
softmax and normalisation of layers work row by row already (tests/laws/test_stacked_modules.py).
So do products of matrices on some machines; where their library looks at the company, or at where
in memory a matrix begins (seen on AMD processors), their matrices are filled too. Whatever else is
done is noted, and nobody may rely on it.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_WHOLE = 64
"""Numbers of the largest step of a vectorized loop."""
_LINE = 64
"""Bytes of a cache line, and so of the longest vector."""
_EXACT = (
    "abs add bitwise_and bitwise_not bitwise_or ceil clamp clamp_max clamp_min clone div eq fill"
    " floor ge gt isfinite isinf isnan le logical_and logical_not logical_or lt masked_fill maximum"
    " minimum mul ne neg relu round sign sqrt sub threshold_backward trunc where _to_copy"
)
"""Pointwise operations with one rounding, if any: alike in vectors and one by one."""
_ROW_BY_ROW = (
    "alias amax amin arange as_strided baddbmm bmm cat copy detach embedding"
    " embedding_dense_backward empty empty_like empty_strided expand full full_like gather"
    " index_select lift_fresh _log_softmax _log_softmax_backward_data mean"
    " native_batch_norm native_layer_norm native_layer_norm_backward new_empty new_full"
    " new_ones new_zeros ones ones_like permute _reshape_alias scalar_tensor scatter"
    " scatter_add select select_backward slice slice_backward _softmax"
    " _softmax_backward_data split split_with_sizes squeeze stack sum t transpose unbind"
    " unsafe_split _unsafe_view unsqueeze view zero zeros zeros_like"
)
"""Other operations of which a row has no part in another's."""
_PRODUCTS = frozenset({"bmm", "baddbmm"})
_ONE_ROUNDING, _KNOWN = frozenset(_EXACT.split()), frozenset(f"{_EXACT} {_ROW_BY_ROW}".split())


class SameBits(TorchDispatchMode):
    """Meanwhile pointwise operations round alike everywhere.

    filled: whether one was met that needs it. others: operations of which nothing is known.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.filled, self.others = False, set[str]()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare torch the import of its compiler, for seconds, to keep it off this class."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.rstrip("_")
        if torch.Tag.pointwise not in func.tags:
            if name in _PRODUCTS and not multiplies_row_by_row(args[-1].dtype, args[-1].device):
                self.filled = True
                return _in_whole_rows(*args, **kwargs)
            if name not in _KNOWN:
                self.others.add(name)
            return func(*args, **kwargs)
        if name in _ONE_ROUNDING and "alpha" not in kwargs:
            return func(*args, **kwargs)
        self.filled = True
        return _in_whole_vectors(func, args, kwargs)


def _in_whole_vectors(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    shape = torch.broadcast_shapes(*[tensor.shape for tensor in tensors])
    if not shape:  # one number, which belongs to no row
        return func(*args, **kwargs)
    count = math.prod(shape)
    length = -(-count // _WHOLE) * _WHOLE

    def whole(arg: Any) -> Any:
        if not isinstance(arg, Tensor) or arg.ndim == 0:
            return arg
        filled = arg.new_zeros(length)
        filled[:count].view(shape).copy_(arg)
        return filled

    out = func(*[whole(arg) for arg in args], **kwargs)[:count].view(shape)
    in_place = func.overloadpacket.__name__.endswith("_")
    return tensors[0].copy_(out) if in_place else out


@lru_cache
def multiplies_row_by_row(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this machine's products of stacked matrices look at each pair alone."""
    odd = (torch.arange(40 * 7 * 64, device=device) * 0.7).sin().to(dtype)
    left, right = odd.view(40, 64, 7).transpose(1, 2), odd.view(40, 64, 7)
    every = torch.bmm(left, right)
    return all(
        torch.equal(every[rows], torch.bmm(left[rows].clone(), right[rows].clone()))
        for rows in (slice(1), slice(2), slice(5, 12), slice(39, 40))
    )


def product(left: Float[Tensor, "*#m b i"], right: Float[Tensor, "*#m i o"]) -> Tensor:
    """Return left @ right, of each pair the bits that it has alone; compiled, whatever is fast."""
    if torch.compiler.is_compiling() or multiplies_row_by_row(left.dtype, left.device):
        return left @ right
    shared = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    count = math.prod(shared)
    pairs = [e.expand(*shared, -1, -1).reshape(count, *e.shape[-2:]) for e in (left, right)]
    return _in_whole_rows(*pairs).view(*shared, left.shape[-2], right.shape[-1])


def _in_whole_rows(*args: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    """Return torch.bmm or baddbmm of matrices that each begin and end at whole vectors.

    A pair alone is multiplied as one of two: for one matrix another program is called.
    """
    *added, left, right = args
    step = _LINE // left.element_size()
    count, height, width = *left.shape[:2], right.shape[2]

    def whole(matrices: Tensor) -> Tensor:
        sides = [-(-side // step) * step for side in matrices.shape[1:]]
        filled = matrices.new_zeros(max(count, 2), *sides)
        filled[:count, : matrices.shape[1], : matrices.shape[2]] = matrices
        return filled

    product = torch.bmm(whole(left), whole(right))[:count, :height, :width]
    return beta * added[0] + alpha * product if added else product.contiguous()

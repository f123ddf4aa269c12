"""Philox 4x32-10: random words that are a function of a key and of their place.

    (l0, l1, l2, l3) <- (hi(M1 l2) ^ l1 ^ k0, lo(M1 l2), hi(M0 l0) ^ l3 ^ k1, lo(M0 l0)), ten times,

    M0 = D2511F53, M1 = CD9E8D57; after each round k0 += 9E3779B9 and k1 += BB67AE85 (mod 2^32)

Salmon, Moraes, Dror & Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011, section 3.3.
Word i of a stream is lane i mod 4 of counter i div 4, so any words are made without those before
them. Integer operations alone: every device gives the same bits. Shapes: n counters, words [4, n]
of 32 bits. Cost: 100 operations on int64 for four words. Memory: 64 n bytes.
"""

import torch
from jaxtyping import Int32
from torch import Tensor

_ROUNDS = 10
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = (1 << 32) - 1

Pair = tuple[int, int]
"""Two words of 32 bits."""


def low_and_high(number: int) -> Pair:
    """Return the words of a number of 64 bits, the low one first."""
    return number & _LOW, number >> 32 & _LOW


def philox(
    key: Pair, upper: Pair, first: int, count: int, *, device: torch.device | str = "cpu"
) -> Int32[Tensor, "4 n"]:
    """Return the four words of the counters from `first` on, all with the same upper half."""
    k0, k1 = key
    l0, l1, l2, l3, p0, p1 = torch.empty(6, count, dtype=torch.int64, device=device)
    torch.arange(first, first + count, out=l0)
    torch.bitwise_right_shift(l0, 32, out=l1)
    l2.fill_(upper[0])
    l3.fill_(upper[1])
    for _ in range(_ROUNDS):  # in place: fresh memory would cost as much as the arithmetic
        torch.bitwise_and(l0, _LOW, out=p0).mul_(_M0)
        torch.bitwise_and(l2, _LOW, out=p1).mul_(_M1)
        torch.bitwise_right_shift(p1, 32, out=l0).bitwise_xor_(l1).bitwise_xor_(k0)
        torch.bitwise_right_shift(p0, 32, out=l2).bitwise_xor_(l3).bitwise_xor_(k1)
        l1, l3, p0, p1 = p1, p0, l1, l3  # upper words stay, and are masked before they matter
        k0, k1 = k0 + _W0 & _LOW, k1 + _W1 & _LOW
    return torch.stack([lane.to(torch.int32) for lane in (l0, l1, l2, l3)])

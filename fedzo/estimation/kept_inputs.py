"""A chain of layers asked at many places, each of which moves few layers: the others run once.

    module = layer_n o ... o layer_1,  x moved in layers k, k + 1, ... alone
    loss at x + alpha u  =  loss of (layer_n o ... o layer_k)(what layer_k reads at x)

Chen et al., "DeepZero: Scaling up Zeroth-Order Optimization for Deep Model Training", ICLR 2024,
feature reuse: for an axis of layer k what comes before is the same on all asks. It is kept when a
first ask computes it, as long as the module is called on the same numbers; so values have the same
bits. Where a layer draws at random, by torch's default generator of the device, nothing is kept:
skipped, it would not draw. Differs: for any direction that tells where it is not 0 (`span`), in a
module that is a chain of its children, nested ones opened. Memory: what the layers that are moved
first read of a batch, and the batch.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedzo.estimation.direction import misses
from fedzo.estimation.place import Place, Term, numbered

_DRAWS = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
"""Layers whose outputs, while they train, are not a function of their inputs alone."""


class KeptInputs:
    """What the layers from which places of a step are asked have read at x."""

    def __init__(self, chain: nn.Sequential, place: Place, moves: Sequence[Sequence[Term]]) -> None:
        self._layers = list(_opened(chain))
        self._reaches: list[tuple[int, int, int]] = []
        self._from = 0
        self._read: Tensor | None = None
        self._kept: dict[int, tuple[Tensor, int]] = {}
        self._draws = False
        owners: dict[int, int] = {}
        for number, layer in reversed(list(enumerate(self._layers))):
            owners |= {id(parameter): number for parameter in layer.parameters()}
        for first, tensor in numbered(place):
            owner = owners.get(id(tensor), 0)
            self._reaches.append((first, first + tensor.numel(), owner))
        starts = [self.first_moved(terms) for terms in moves]
        self.spared = sum(start > 0 for start in starts)
        self._wanted = {*starts}

    def first_moved(self, terms: Sequence[Term]) -> int:
        """Return the first layer that the terms move, the number of layers where none is."""
        touched = [
            owner
            for low, high, owner in self._reaches
            if not all(misses(u, low, high) for u, _ in terms)
        ]
        return min(touched, default=len(self._layers))

    def move_from(self, layer: int) -> None:
        """Say that layers before this one are as they are at x in the next pass."""
        self._from = layer

    def forward(self, inputs: Any) -> Any:
        """Do what the chain does, from the layer on that is moved."""
        if not isinstance(inputs, Tensor):
            return functools.reduce(lambda out, layer: layer(out), self._layers, inputs)
        if self._read is None or not _same(self._read, inputs):
            self._kept, self._read = {}, inputs.clone()  # whoever calls may use its memory again
        begin, out, before = 0, inputs, _drawn_state(inputs)
        for number, (tensor, version) in self._kept.items():
            if begin < number <= self._from and tensor._version == version:
                begin, out = number, tensor
        for number in range(begin, len(self._layers)):
            out = self._layers[number](out)
            if number < self._from and number + 1 in self._wanted:
                self._keep(number + 1, out)
        self._draws |= not torch.equal(before, _drawn_state(inputs))
        if self._draws:
            self._kept = {}
        return out

    def _keep(self, number: int, inputs: Tensor) -> None:
        """Keep what a layer reads, with how often it was written: a layer may work in place."""
        if not inputs.is_inference():  # of which nobody knows
            self._kept[number] = (inputs, inputs._version)


@contextmanager
def keeping_inputs(
    module: nn.Module | None, place: Place, moves: Sequence[Sequence[Term]]
) -> Iterator[KeptInputs | None]:
    """Let a chain start from what it has kept, where that spares anything; None where it cannot."""
    if module is None or type(module) is not nn.Sequential or not _is_plain(module):
        yield None
        return
    kept = KeptInputs(module, place, moves)
    if kept.spared < 2:
        yield None
        return
    vars(module)["forward"] = kept.forward  # of the instance, called in place of the class's
    try:
        yield kept
    finally:
        del vars(module)["forward"]


def _opened(chain: nn.Sequential) -> Iterator[nn.Module]:
    for layer in chain:
        if type(layer) is nn.Sequential and not _hooked(layer):
            yield from _opened(layer)
        else:
            yield layer


def _is_plain(module: nn.Module) -> bool:
    """Whether layers give the same outputs for the same inputs, and nobody watches their calls."""
    parts = list(module.modules())
    draws = any(isinstance(part, _DRAWS) and part.training for part in parts)
    return not draws and not any(_hooked(part) for part in parts)


def _hooked(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part))


def _drawn_state(inputs: Tensor) -> Tensor:
    """Return the state of the generator of the inputs' device."""
    if inputs.is_cuda:
        return torch.cuda.get_rng_state(inputs.device)
    return torch.get_rng_state()


def _same(one: Tensor, other: object) -> bool:
    if not isinstance(other, Tensor) or one.dtype != other.dtype or one.device != other.device:
        return False
    return torch.equal(one, other)

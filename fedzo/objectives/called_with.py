"""A module called with other parameters and buffers than its own.

`torch.func.functional_call` swaps a layer that a module has under two names twice, and puts the
given tensors back as the layer's own: the module is broken afterwards. Here every layer is given
its tensors once, and tied tensors of different layers are the same.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def called_with(module: nn.Module, state: Mapping[str, Tensor], *inputs: Any) -> Any:
    """Return what a module answers with these tensors, by the names of `named_parameters`.

    Names that are not given, but for those of tied tensors, are the module's own.
    """
    tied = {
        name: state[first]
        for first, *others in _names(module)
        if first in state
        for name in others
        if name not in state
    }
    return torch.func.functional_call(module, {**state, **tied}, inputs, tie_weights=False)


def _names(module: nn.Module) -> list[list[str]]:
    """Return the names of each tensor, one in each place of each layer that has it."""
    names: dict[int, list[str]] = {}
    for prefix, part in module.named_modules():  # each layer once
        for own in (part._parameters, part._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    names.setdefault(id(tensor), []).append(f"{prefix}.{name}" if prefix else name)
    return list(names.values())

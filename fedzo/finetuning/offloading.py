"""A module whose parameters stay on the CPU, and come to a device layer by layer as they are used.

    each layer, when it is called:  parameters, moved where a probe asks -> device -> forgotten

Wang et al., "ZO2: Scalable Zeroth-Order Fine-Tuning for Extremely Large Language Models with
Limited GPU Memory", COLM 2025 (2503.12668). A zeroth-order step reads parameters and needs nothing
of them afterwards, so the device holds one layer and activations. Steps move the parameters on the
CPU.
Memory on the device: the largest layer, and the buffers. Copied a pass: all parameters, once.

Differs from the paper: copies do not overlap with computing, the probe is made before the copy, on
the CPU, so that its bits do not depend on the device; layers take the place of blocks.
"""

from typing import Any

import torch
from torch import nn

from fedzo.config import require
from fedzo.objectives.modules import trained_parameters


class Offload:
    """What brings a module's layers to a device; `remove` ends it."""

    def __init__(self, module: nn.Module, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._handles: list[Any] = []
        self._held: dict[nn.Module, list[tuple[nn.Module, str, nn.Parameter]]] = {}
        require(bool(trained_parameters(module)), "module", type(module).__name__, "not all frozen")
        away = sorted({str(p.device) for p in module.parameters() if p.device.type != "cpu"})
        require(not away, "module", f"on {', '.join(away)}", "on the CPU, from where it is read")
        for part in module.modules():
            for name, buffer in part._buffers.items():
                part._buffers[name] = None if buffer is None else buffer.to(self.device)
            if any(True for _ in part.parameters(recurse=False)):
                self._handles += [
                    part.register_forward_pre_hook(self._bring),
                    part.register_forward_hook(self._take, always_call=True),
                ]

    def remove(self) -> None:
        """Leave the module as it was, but for buffers, which stay on the device."""
        for handle in self._handles:
            handle.remove()

    def _bring(self, layer: nn.Module, _: object) -> None:
        held = [
            (part, name, p)
            for part in layer.modules()
            for name, p in part._parameters.items()
            if p is not None and p.device.type == "cpu"
        ]
        self._held[layer] = held
        for part, name, p in held:
            part._parameters[name] = p.to(self.device)  # type: ignore[assignment]

    def _take(self, layer: nn.Module, *_: object) -> None:
        for part, name, p in self._held.pop(layer, []):
            part._parameters[name] = p


def offload_(module: nn.Module, device: torch.device | str) -> Offload:
    """Keep a module's parameters on the CPU, and run its layers on a device.

        offload_(model, "cuda")
        optimizer = fedzo.ZerothOrder(model, lr=1e-4)
        optimizer.step(lambda: F.cross_entropy(model(x.cuda()), y.cuda()))

    Inputs are given on the device. Raises ConfigError for a module that is elsewhere or frozen.
    """
    return Offload(module, device)

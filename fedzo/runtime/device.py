"""Where objectives and rules compute: the CPU, or the GPU that this process may use.

An environment on a device has its objectives there, and `serve` takes questions and states there
too, so a rule need not know of devices: its tensors are where x is, and what crosses in an exchange
is what travels.
"""

import copy
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective
from fedzo.runtime.engine_configs import DeviceName
from fedzo.runtime.local import Environment


def on_device(
    environment: Environment, device: DeviceName, memory_share: float = 0.0
) -> Environment:
    """Return the environment with its objectives evaluated on a device.

    auto is cuda where this process has a GPU. memory_share: of the GPU's memory, the most that this
    process may use; 0 is no limit. Raises ConfigError when there is no GPU.
    """
    if not uses_gpu(device, name="engine.device"):
        return environment
    if 0 < memory_share < 1:
        torch.cuda.set_per_process_memory_fraction(memory_share)
    return DeviceEnvironment(environment, torch.device("cuda"))


def uses_gpu(device: DeviceName, *, name: str = "device") -> bool:
    """Return whether a device is a GPU here; raises ConfigError, by name, where there is none."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError(f"{name}=cuda, and this process sees no GPU; set it to auto or cpu")
    return device != "cpu" and available


class DeviceEnvironment:
    """An environment whose objectives are moved to a device when they are first asked."""

    def __init__(self, inner: Environment, device: torch.device) -> None:
        self._inner = inner
        self._mover = Mover(device)

    @property
    def noise_std(self) -> float:
        return self._inner.noise_std

    @property
    def device(self) -> torch.device:
        """Where the objectives are, and so the rules' tensors."""
        return self._mover.device

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        moved: CohortObjective = self._mover.move(self._inner.cohort(client_ids, problem))
        return moved


class Mover:
    """Moves objectives to a device: their tensors and modules, wherever they are in dataclasses.

    A tensor or module that many objectives share is moved once, and the original stays.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._tensors = WeakTensorKeyDictionary()
        self._modules: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()

    def move(self, value: Any) -> Any:
        """Return the value on the device; what is no tensor, module or container of them, as is."""
        if isinstance(value, Tensor):
            if value not in self._tensors:
                self._tensors[value] = value.to(self.device)
            return self._tensors[value]
        if isinstance(value, nn.Module):
            if value not in self._modules:
                self._modules[value] = copy.deepcopy(value).to(self.device)
            return self._modules[value]
        if isinstance(value, dict):
            return {key: self.move(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            moved_items = [self.move(item) for item in value]
            named = hasattr(value, "_fields")
            return type(value)(*moved_items) if named else type(value)(moved_items)
        if is_dataclass(value) and not isinstance(value, type):
            kept = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
            moved = {name: self.move(item) for name, item in kept.items()}
            same = all(moved[name] is item for name, item in kept.items())
            return value if same else replace(value, **moved)
        return value

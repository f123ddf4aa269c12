"""Where objectives are evaluated: the CPU, or the GPU that this process may use.

Rules compute on the CPU; their points go to the device, and values and gradients come back. So a
rule need not know of devices, and what is expensive, the objective, runs there.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from fedzo.errors import ConfigError
from fedzo.objectives.asking import Asking
from fedzo.objectives.cohort import CohortObjective, FiniteSumCohort, flip_labels
from fedzo.objectives.objective import Bound
from fedzo.privacy.clipping import Clipped, clipped_sums, record_values
from fedzo.runtime.engine_configs import DeviceName
from fedzo.runtime.local import Environment


def on_device(
    environment: Environment, device: DeviceName, memory_share: float = 0.0
) -> Environment:
    """Return the environment with its objectives evaluated on a device.

    auto is cuda where this process has a GPU. memory_share: of the GPU's memory, the most that this
    process may use; 0 is no limit. Raises ConfigError when there is no GPU.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError("engine.device=cuda, and this process sees no GPU; set it to auto or cpu")
    if device == "cpu" or not available:
        return environment
    if 0 < memory_share < 1:
        torch.cuda.set_per_process_memory_fraction(memory_share)
    return DeviceEnvironment(environment, torch.device("cuda"))


class DeviceEnvironment:
    """An environment whose objectives are moved to a device when they are first asked."""

    def __init__(self, inner: Environment, device: torch.device) -> None:
        self._inner = inner
        self._mover = Mover(device)

    @property
    def noise_std(self) -> float:
        return self._inner.noise_std

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        cohort = self._mover.move(self._inner.cohort(client_ids, problem))
        if isinstance(cohort, FiniteSumCohort):
            return DeviceFiniteSums(cohort, self._mover.device)
        return DeviceCohort(cohort, self._mover.device)


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


@dataclass(frozen=True, slots=True)
class DeviceCohort:
    """A cohort on a device: points go there, values come back to where the points are."""

    inner: CohortObjective
    device: torch.device

    @property
    def num_clients(self) -> int:
        return self.inner.num_clients

    @property
    def dim(self) -> int:
        return self.inner.dim

    @property
    def lower(self) -> Bound:
        return _here(self.inner.lower)

    @property
    def upper(self) -> Bound:
        return _here(self.inner.upper)

    @property
    def failures(self) -> dict[int, str]:
        return self.inner.failures

    @property
    def unasked(self) -> dict[int, int]:
        """Points that a client which raised was not asked; see LoopedCohort."""
        found: dict[int, int] = getattr(self.inner, "unasked", {})
        return found

    @property
    def asking(self) -> Asking | None:
        """How clients are asked one by one; None where they are not."""
        return getattr(self.inner, "asking", None)

    def value(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]:
        return self.inner.value(x.to(self.device)).to(x.device)


@dataclass(frozen=True, slots=True)
class DeviceFiniteSums(DeviceCohort):
    """A cohort of means over examples, on a device."""

    @property
    def sizes(self) -> Int[Tensor, " n"]:
        return cast(FiniteSumCohort, self.inner).sizes.cpu()

    def minibatch(self, indices: Int[Tensor, "n b"]) -> DeviceCohort:
        inner = cast(FiniteSumCohort, self.inner).minibatch(indices.to(self.device))
        kind = DeviceFiniteSums if hasattr(inner, "sizes") else DeviceCohort
        return kind(inner, self.device)

    def clipped_sums(
        self,
        x: Float[Tensor, "n d"],
        previous: Float[Tensor, "n d"] | None,
        clip_norms: Float[Tensor, " n"],
        max_floats: int,
    ) -> Clipped:
        """Return sums of the examples' clipped gradients, made on the device."""
        before = None if previous is None else previous.to(self.device)
        there = x.to(self.device)
        norms = clip_norms.to(self.device)
        found = clipped_sums(self.inner, there, before, norms, max_floats=max_floats)
        return Clipped(found.sums.to(x.device), found.shortened.to(x.device))

    def record_values(self, x: Float[Tensor, "n q d"]) -> list[Float[Tensor, "q m"]]:
        """Return the loss of every example of each client at its points."""
        return [told.to(x.device) for told in record_values(self.inner, x.to(self.device))]

    def labels_by_client(self) -> list[Tensor]:
        """Return the labels of each client's examples, on the CPU; nothing where there are none."""
        inner = self.inner
        found = inner.labels_by_client() if hasattr(inner, "labels_by_client") else []
        return [labels.cpu() for labels in found]

    def flipped(self) -> "DeviceFiniteSums":
        """Return the same with flipped labels; raises ConfigError where there are none."""
        return DeviceFiniteSums(flip_labels(self.inner), self.device)


def _here(bound: Bound) -> Bound:
    return bound.cpu() if isinstance(bound, Tensor) else bound

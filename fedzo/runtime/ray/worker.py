"""The Ray actor: objectives and rules in a process that may die without loss."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedzo.config import Scalar
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.protocol.question import Parts, Question, put_together
from fedzo.runtime.device import on_device
from fedzo.runtime.engine_configs import DeviceName
from fedzo.runtime.local import Environment, Rules, serve

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back of a chunk; states are None where nothing changed."""

    replies: Replies
    tensors: Arrays
    states: list[Arrays | None]


@dataclass(frozen=True, slots=True)
class QuestionArrays:
    """A question on its way to an actor, without the tensors that all clients get."""

    cls: type[Question[Any]]
    own: Arrays
    scalars: Mapping[str, Scalar]

    def with_shared(self, shared: Arrays) -> Question[Any]:
        """Return the question with these tensors for all."""
        parts = Parts(to_tensors(shared), to_tensors(self.own), self.scalars)
        return put_together(self.cls, parts)


class Worker:
    """The actor: objectives and rules, and nothing that must not be lost."""

    def __init__(
        self,
        make_environment: Callable[[], Environment],
        make_rules: Callable[[], Rules],
        device: DeviceName,
        memory_share: float,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self._environment = on_device(make_environment(), device, memory_share)
        self._rules = make_rules()

    def pid(self) -> int:
        return os.getpid()

    def visible_gpus(self) -> str:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "")

    def serve(
        self,
        question: QuestionArrays,
        shared: Arrays,
        facts: dict[str, Any],
        states: list[Arrays],
    ) -> Answer:
        exchange = Exchange(question=question.with_shared(shared), **facts)
        before = [to_tensors(state) for state in states]
        replies, after = serve(exchange, self._environment, self._rules, before)
        changed = [
            None if new is old else to_arrays(new) for old, new in zip(before, after, strict=True)
        ]
        return Answer(replace(replies, tensors={}), to_arrays(replies.tensors), changed)


def facts_of(exchange: Exchange) -> dict[str, Any]:
    """Return all of an exchange but its question."""
    here = ("question", "down", "is_enough")
    named = {f.name: getattr(exchange, f.name) for f in fields(exchange) if f.name not in here}
    return {**named, "client_ids": list(exchange.client_ids)}


def to_arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """Return tensors as arrays, which Ray moves without copies."""
    return {name: np.asarray(t.detach().cpu().numpy(), order="C") for name, t in tensors.items()}


def to_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return tensors with memory of their own: Ray's is read-only and shared."""
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

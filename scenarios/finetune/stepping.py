"""A task that is trained step by step: the same batches and steps in every process of a run."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedzo.errors import FedzoWarning
from fedzo.finetuning.log import Log
from fedzo.finetuning.parallel import Parallel
from fedzo.finetuning.quantized import quantize_
from fedzo.objectives.modules import named_trained
from fedzo.randomness import stream
from fedzo.runtime.device import uses_gpu
from scenarios.finetune.task import Task
from scenarios.finetune.tasks import make_task
from scenarios.finetune.trainers import ByValues, Finetuning, Trainer, make_trainer

_WHOLE_ROW = 1 << 30


@dataclass(frozen=True, slots=True)
class Before:
    """What a run has done before it goes on: the log of its steps, or where they have led.

    forwards: what the steps have cost. state: of `Stepping.state`, where a method keeps no log.
    """

    steps: int
    forwards: int
    log: Log | None = None
    state: Mapping[str, Any] = field(default_factory=dict)


class Stepping:
    """Where a run stands: steps taken, and example-forwards, those of all processes."""

    def __init__(self, config: Finetuning, parallel: Parallel | None = None) -> None:
        self.task = task_of(config)
        self.trainer: Trainer = make_trainer(self.task, config, parallel)
        self.steps = self.forwards = 0
        self._config = config
        self._lrs = [float(group["lr"]) for group in self.trainer.optimizer.param_groups]
        self._batches = _batches(self.task, config)

    def advance(self) -> float:
        """Take a step, and return its loss."""
        if self._config.decay:
            left = 1 - self.forwards / self._config.forwards
            for group, lr in zip(self.trainer.optimizer.param_groups, self._lrs, strict=True):
                group["lr"] = lr * left
        inputs, targets = self.task.train_batch(next(self._batches))
        loss, examples = self.trainer.step(inputs, targets)
        self.steps += 1
        self.forwards += examples
        return loss

    def return_to(self, before: Before) -> None:
        """Go on where a run was: take its steps without asking, or take its state."""
        if before.log is not None:
            assert isinstance(self.trainer, ByValues)
            self.trainer.optimizer.replay(before.log)
        else:
            held = _held(self.task)
            with torch.no_grad():
                for name, tensor in before.state["tensors"].items():
                    held[name].copy_(tensor)
            self.trainer.optimizer.load_state_dict(before.state["optimizer"])
        for _ in range(before.steps):
            next(self._batches)
        self.steps, self.forwards = before.steps, before.forwards

    @property
    def state(self) -> dict[str, Any]:
        """What `return_to` needs to go on from here, where the method keeps no log."""
        return {"tensors": _held(self.task), "optimizer": self.trainer.optimizer.state_dict()}


def task_of(config: Finetuning) -> Task:
    """Return the task that a run trains, as it begins."""
    task = make_task(
        config.task,
        seed=config.seed,
        layers=config.layers,
        adapters=config.adapters,
        examples=config.examples,
        data_dir=config.data_dir,
        device="cuda" if uses_gpu(config.device) else "cpu",
    )
    if config.quantized:
        quantize_(task.module, bits=config.quantized, group=_WHOLE_ROW)
    return task


def _held(task: Task) -> dict[str, Tensor]:
    """Return what training changes of a network."""
    return {**dict(named_trained(task.module)), **dict(task.module.named_buffers())}


def _batches(task: Task, config: Finetuning) -> Iterator[Tensor]:
    generator = stream(config.seed, "finetune", "batches")
    size = min(config.batch_size, len(task.train))
    if size < config.batch_size:
        warnings.warn(
            f"batch_size={config.batch_size} is more than the {size} examples to train on: a step"
            " takes all of them",
            FedzoWarning,
            stacklevel=2,
        )
    while True:
        yield from task.batches(size, generator=generator)

"""What trains a task: a zeroth-order method, activity perturbation, or first order."""

from dataclasses import dataclass, replace
from typing import Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from fedzo.config import Scalar, build_config, check_types, require, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.finetuning.activity.optimizer import ActivityZO
from fedzo.finetuning.activity.schedule import ActivityConfig, FeedbackName
from fedzo.finetuning.methods.table import METHODS
from fedzo.finetuning.parallel import Parallel
from fedzo.finetuning.zeroth_order import ZerothOrder
from fedzo.objectives.modules import named_trained
from fedzo.runtime.engine_configs import DeviceName
from fedzo.setting_texts import parse_settings
from scenarios.finetune.encoder import EncoderLayer
from scenarios.finetune.rates import suggested_lr
from scenarios.finetune.task import HEAD, Examples, Task
from scenarios.finetune.tasks import TaskName
from scenarios.finetune.texts import TextTaskName

FIRST_ORDER, ACTIVITY = "first_order", "activity"
TRAINERS = (*METHODS, ACTIVITY, FIRST_ORDER)
"""Names of all that a task can be trained by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuning:
    """What is asked for.

    lr: of a step; 0 for what scenarios.finetune.rates suggests. decay: whether it falls to 0 in a
    straight line over the run. forwards: example-forwards after which the run ends. looks:
    at the test examples, the first before training. settings: of the method, such as
    "rank=4 mu=0.01".
    stacked: whether a small network is asked at all places of a step at once.
    workers: processes that ask the places of a step together, this one and others on Ray.
    data_parallel: how many of them share a batch instead. address: of a running Ray cluster.
    device: where the network is; auto: a GPU where there is one.
    layers, adapters, examples, data_dir: of the task (scenarios.finetune.tasks). bits: of the
    weights of linear layers, which are quantized, and of which the scales alone are trained
    (fedzo.finetuning.quantized); 0: they stay as they are, or have 4 for qzo.
    """

    task: TaskName
    method: str = "zo_sgd"
    settings: str = ""
    lr: float = 0.0
    decay: bool = False
    batch_size: int = 16
    forwards: int = 20_000
    looks: int = 11
    seed: int = 0
    stacked: bool = False
    workers: int = 1
    data_parallel: int = 1
    address: str = ""
    layers: int = -1
    adapters: int = 0
    examples: int = 0
    data_dir: str = ""
    bits: int = 0
    device: DeviceName = "cpu"

    def __post_init__(self) -> None:
        check_types(self)
        require(self.method in TRAINERS, "method", self.method, f"one of {', '.join(TRAINERS)}")
        require(0 <= self.lr < float("inf"), "lr", self.lr, "at least 0 and finite")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        require(self.forwards >= 1, "forwards", self.forwards, "at least 1")
        require(self.layers >= -1, "layers", self.layers, "-1 (the task's) or more")
        require_nonnegative("examples", self.examples)
        require(self.looks >= 2, "looks", self.looks, "at least 2: before and after")
        for name in ("workers", "data_parallel"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        shares, by = f"a multiple of data_parallel={self.data_parallel}", self.data_parallel
        require(self.workers % by == 0, "workers", self.workers, shares)
        require(self.batch_size % by == 0, "batch_size", self.batch_size, shares)
        if self.workers > 1 and self.method not in METHODS:
            raise ConfigError(
                f"workers={self.workers} share the values of zeroth-order methods, and"
                f" {self.method} steps by more than values; leave them out"
            )
        if self.workers > 1 and self.device != "cpu":
            raise ConfigError(
                f"workers={self.workers} compute on CPUs, and device={self.device}; leave one of"
                " them out, or train on several GPUs by torchrun and fedzo.finetuning.parallel"
            )
        if self.address and self.workers == 1:
            raise ConfigError(f"address={self.address} is for workers; ask for at least 2")
        require_nonnegative("adapters", self.adapters)
        require(self.bits == 0 or 2 <= self.bits <= 8, "bits", self.bits, "0 (none), or 2 to 8")
        if self.quantized and (self.adapters or self.method == ACTIVITY):
            raise ConfigError(
                f"bits={self.quantized} leave scales alone to be trained, no adapters and no layer"
                f" that {ACTIVITY} knows; leave them out, or take another method"
            )
        if self.adapters and self.method == ACTIVITY:
            raise ConfigError(
                f"adapters={self.adapters} have no outputs of their own for the noise of"
                f" {ACTIVITY}; leave them out, or take another method"
            )
        if self.settings and self.method == FIRST_ORDER:
            raise ConfigError(f"settings are of zeroth-order methods; {self.method} has none here")

    def require_used(self) -> None:
        """Raise ConfigError for what has no effect, which folders of older runs may hold."""
        asks = self.method in METHODS and METHODS[self.method].asks_values
        if self.stacked and not asks:
            raise ConfigError(
                f"stacked=True is for methods that ask values at several places, and {self.method}"
                " does not; leave it out"
            )
        texts = get_args(TextTaskName)
        if self.data_dir and self.task not in texts:
            raise ConfigError(
                f"data_dir={self.data_dir} has no effect on task={self.task}, which reads no texts"
                f" (as {', '.join(texts)} do); leave it out"
            )

    @property
    def words(self) -> dict[str, Scalar]:
        """The settings of the method by name."""
        return parse_settings(self.settings.split())

    @property
    def quantized(self) -> int:
        """The bits of quantized weights; 0 where there are none."""
        return self.bits or (4 if self.method == "qzo" else 0)


@runtime_checkable
class Trainer(Protocol):
    """Takes steps on batches."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What has the rate, in its groups."""
        ...

    def step(self, inputs: Tensor, targets: Tensor) -> tuple[float, int]:
        """Take a step; return the loss and how many examples went forward."""
        ...


def make_trainer(task: Task, config: Finetuning, parallel: Parallel | None = None) -> Trainer:
    """Return what trains the task; parallel: with which processes, for zeroth-order methods."""
    if config.method == ACTIVITY:
        return _ByActivity(task, config)
    if config.method == FIRST_ORDER:
        return _FirstOrder(task, config)
    return ByValues(task, config, parallel)


def zeroth_order(task: Task, config: Finetuning, parallel: Parallel | None = None) -> ZerothOrder:
    """Return the optimizer of a run; it begins where the task does."""
    return ZerothOrder(
        task.module,
        rate_of(task, config),
        method=config.method,
        settings=config.words,
        seed=config.seed,
        stacked=config.stacked,
        parallel=parallel,
    )


def rate_of(task: Task, config: Finetuning) -> float:
    """Return the rate of the first step: what is asked for, or what suits the method."""
    numbers = sum(parameter.numel() for _, parameter in named_trained(task.module))
    exact = config.method in (ACTIVITY, FIRST_ORDER)
    suggested = suggested_lr(config.method, numbers, by_gradients=exact, bits=config.quantized)
    return config.lr or suggested


class ByValues:
    """Steps by values, of this process's share of the examples where others have shares too."""

    def __init__(self, task: Task, config: Finetuning, parallel: Parallel | None = None) -> None:
        self._task = task
        self.optimizer = zeroth_order(task, config, parallel)
        shard, count = (parallel.shard, parallel.data) if parallel else (0, 1)
        self._own, self._shares = slice(shard, None, count), count
        require(
            len(task.train) >= count, "examples", len(task.train), f"at least data_parallel={count}"
        )

    def step(self, inputs: Tensor, targets: Tensor) -> tuple[float, int]:
        task, spent = self._task, self.optimizer.spent
        before, on_all = spent.forwards + spent.tangents, spent.on_all

        def full() -> Tensor:
            some = task.train.take(self._own)
            return self._mean(task.losses(task.outputs(some), some.targets), len(task.train))

        def batch() -> Tensor:
            some = Examples(inputs[self._own], targets[self._own])
            return self._mean(task.losses(task.module(some.inputs), some.targets), len(targets))

        loss = self.optimizer.step(batch, full=full)
        asked = spent.forwards + spent.tangents - before  # a stacked ask is one call of many places
        return loss, asked * (len(task.train) if spent.on_all > on_all else len(targets))

    def _mean(self, losses: Tensor, total: int) -> Tensor:
        """Return what, averaged over the shares, is the mean over `total` examples."""
        return losses.mean() * (self._shares * len(losses) / total)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivitySettings(ActivityConfig):
    """What ActivityZO can be told by words; feedback: auto, biased, unbiased or off."""

    feedback: FeedbackName = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class _EncoderSettings(ActivitySettings):
    """Those of encoders, found on seed 100 of `order` and of `digits_transformer`."""

    feedback: FeedbackName = "biased"
    warm_up: int = 64
    period: int = 8
    ridge: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _TextSettings(_EncoderSettings):
    """Those of texts, whose encoder is larger."""

    warm_up: int = 150


class _ByActivity:
    """Of an encoder, noise goes to where its blocks end, and into the head.

    With noise in every layer the feedback would need ten times the examples before it says
    anything; a block's inner layer is chained to its outer one, and attention stays as it is.
    """

    def __init__(self, task: Task, config: Finetuning) -> None:
        self._task = task
        blocks = any(isinstance(part, EncoderLayer) for part in task.module.modules())
        encoder = _TextSettings if task.padded else _EncoderSettings
        words = config.words
        told = build_config(encoder if blocks else ActivitySettings, words, section=ACTIVITY)
        if "warm_up" not in words:  # a step of it asks a batch twice
            third = config.forwards // (3 * 2 * config.batch_size)
            told = replace(told, warm_up=min(told.warm_up, third))
        self.optimizer = ActivityZO(
            task.module,
            task.losses,
            lr=rate_of(task, config),
            sites=("*.output", "*.outer", HEAD) if blocks else None,
            chained=("*.inner",) if blocks else (),
            share_tokens=True if blocks else None,
            feedback=told.feedback,
            seed=config.seed,
            config=told,
        )

    def step(self, inputs: Tensor, targets: Tensor) -> tuple[float, int]:
        before = self.optimizer.spent.examples
        loss = self.optimizer.step(lambda: (self._task.module(inputs), targets))
        return loss, self.optimizer.spent.examples - before


class _FirstOrder:
    def __init__(self, task: Task, config: Finetuning) -> None:
        self._task = task
        self.optimizer = torch.optim.AdamW(task.module.parameters(), lr=rate_of(task, config))

    def step(self, inputs: Tensor, targets: Tensor) -> tuple[float, int]:
        self.optimizer.zero_grad()
        loss = self._task.losses(self._task.module(inputs), targets).mean()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach()), len(targets)

"""Training a task by one method: the curve by forward passes, the log, and the trained module.

A run's folder: finetune.json (what was asked for), curve.jsonl (a line for each look at the test
examples), log.safetensors (all values that a zeroth-order method was told), model.safetensors,
curve.png. The log is the checkpoint: a run goes on from it, and `replayed` makes the module anew.
Methods that step by more than values keep state.safetensors instead, to go on from.

    axis: example-forwards, one example once through the trained layers; backward passes of
    first_order are not counted
"""

import json
import math
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fedzo.errors import CheckpointError, ConfigError, FedzoWarning
from fedzo.finetuning.log import Log
from fedzo.finetuning.methods.table import METHODS
from fedzo.finetuning.parallel import Parallel
from fedzo.objectives.modules import named_trained
from fedzo.records.nested import read_nested, write_nested
from fedzo.records.storage import write_whole
from fedzo.records.strict_json import strict_json
from fedzo.records.tensor_file import write_tensors
from scenarios.finetune.stepping import Before, Stepping, task_of
from scenarios.finetune.task import Task
from scenarios.finetune.trainers import ACTIVITY, ByValues, Finetuning, rate_of, zeroth_order

CONFIG, CURVE, LOG, MODEL = "finetune.json", "curve.jsonl", "log.safetensors", "model.safetensors"
STATE, PICTURE = "state.safetensors", "curve.png"
_RISE = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """What is known at one point of a run.

    train_loss: the mean since the look before; NaN at the first.
    """

    step: int
    forwards: int
    seconds: float
    train_loss: float
    test_loss: float
    test_accuracy: float

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Look":
        """Return the look that a line tells, in which null is NaN."""
        known: dict[str, Any] = {name: math.nan if v is None else v for name, v in told.items()}
        return cls(**known)


def finetune(
    config: Finetuning,
    *,
    out: Path | None = None,
    told: Callable[[Look], None] = lambda _: None,
) -> list[Look]:
    """Train, and return what was seen; `told` hears of every look.

    out: the folder of the run, which goes on where it stopped. Raises ConfigError for a folder of
    another run, and where data or a package is missing.
    """
    if out is None or not (out / CONFIG).exists():
        config.require_used()
    held, before = _begun(out, config)
    with _processes(config, before) as parallel:
        stepping = Stepping(config, parallel)
        if before is not None:
            stepping.return_to(before)
        return _Run(stepping, config, out, held).go(told)


def replayed(out: Path) -> dict[str, Tensor]:
    """Make the module of a run from its log alone, and return its trained parameters by name.

    Raises CheckpointError where the folder has no log, and ConfigError where the task cannot be
    made.
    """
    config = read_config(out)
    if config.method not in METHODS:
        raise CheckpointError(f"{config.method} keeps no log; zeroth-order methods can be replayed")
    task = task_of(config)
    zeroth_order(task, config).replay(Log.load(out / LOG))
    return trained(task)


def read_config(out: Path) -> Finetuning:
    """Return what a folder's run was asked for. Raises CheckpointError where it has none."""
    try:
        return Finetuning(**json.loads((out / CONFIG).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{out} holds no run of `fedzo finetune`: {error}") from error


def trained(task: Task) -> dict[str, Tensor]:
    """Return the trained parameters of a task by name."""
    return {name: p.detach() for name, p in named_trained(task.module)}


class _Run:
    """A run that goes on step by step."""

    def __init__(self, stepping: Stepping, config: Finetuning, out: Path | None, held: list[Look]):
        self._stepping, self._config, self._out, self._looks = stepping, config, out, held
        self._losses = list[float]()
        self._risen = False
        self._began = time.monotonic() - (held[-1].seconds if held else 0.0)

    def go(self, told: Callable[[Look], None]) -> list[Look]:
        if not self._looks:
            self._look(told)
        while self._stepping.forwards < self._config.forwards:
            self._losses.append(self._stepping.advance())
            if self._stepping.forwards >= self._next_look():
                self._look(told)
        if self._stepping.steps > self._looks[-1].step:
            self._look(told)
        self._finish()
        return self._looks

    def _next_look(self) -> float:
        distances, whole = self._config.looks - 1, self._config.forwards
        passed = self._looks[-1].forwards * distances // whole
        return (passed + 1) * whole / distances

    def _look(self, told: Callable[[Look], None]) -> None:
        task, trainer = self._stepping.task, self._stepping.trainer
        score = task.evaluate(task.test)
        seen = sum(self._losses) / len(self._losses) if self._losses else float("nan")
        seconds, where = time.monotonic() - self._began, self._stepping
        look = Look(where.steps, where.forwards, seconds, seen, score.loss, score.accuracy)
        self._losses.clear()
        self._looks.append(look)
        if self._out is not None:
            looks = [asdict(each) for each in self._looks]
            if isinstance(trainer, ByValues):
                trainer.optimizer.log.save(self._out / LOG)
            else:
                write_nested(self._out / STATE, {"looks": looks, **where.state})
            lines = [strict_json(each) for each in looks]
            write_whole(self._out / CURVE, "\n".join(lines) + "\n")
        told(look)
        self._warn_of_rise()

    def _warn_of_rise(self) -> None:
        """Say once that steps are too large: the loss is far above what it was at the start."""
        first, now = self._looks[0].test_loss, self._looks[-1].test_loss
        if self._risen or now <= _RISE * first:
            return
        self._risen = True
        lr = rate_of(self._stepping.task, self._config)
        warnings.warn(
            f"the test loss has risen from {first:.3g} to {now:.3g}: steps of lr={lr:.2g} are too"
            f" large for {self._config.method} here; try a tenth",
            FedzoWarning,
            stacklevel=2,
        )

    def _finish(self) -> None:
        if self._out is not None:
            write_tensors(self._out / MODEL, trained(self._stepping.task), "{}")
            from scenarios.finetune.picture import draw_curve  # matplotlib: for who draws

            name = f"{self._config.task} by {self._config.method}, seed {self._config.seed}"
            told = {
                "test accuracy": [look.test_accuracy for look in self._looks],
                "test loss": [look.test_loss for look in self._looks],
            }
            forwards = [look.forwards for look in self._looks]
            draw_curve(forwards, told, name, self._out / PICTURE)


def _processes(
    config: Finetuning, before: Before | None
) -> AbstractContextManager[Parallel | None]:
    """Start the other processes of a run, where it has some."""
    if config.workers == 1:
        return nullcontext()
    from scenarios.finetune.workers import working_together  # ray: for who has workers

    return working_together(config, before)


def _begun(out: Path | None, config: Finetuning) -> tuple[list[Look], Before | None]:
    """Make a run's folder, or return what was seen of the run in it, and what it has done."""
    if out is None:
        return [], None
    if not (out / CONFIG).exists():
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / CONFIG, json.dumps(asdict(config), indent=1) + "\n")
        return [], None
    held = read_config(out)
    longer = held.forwards != config.forwards
    if held.decay and config.decay and longer:
        raise ConfigError(
            f"{out} holds a run whose lr falls to 0 after {held.forwards} forwards, so it cannot be"
            f" one of {config.forwards}; name another folder, or leave out decay"
        )
    if config.method == ACTIVITY and longer and "warm_up" not in held.words:
        raise ConfigError(
            f"{out} holds a run whose warm-up suits its {held.forwards} forwards, so it cannot be"
            f" one of {config.forwards}; name another folder, or begin with --set warm_up=N"
        )
    may_change = {
        name: getattr(config, name) for name in ("forwards", "workers", "address", "device")
    }
    if replace(held, **may_change) != config:
        raise ConfigError(f"{out} holds a run of other settings; name another folder")
    if not (out / CURVE).exists():
        return [], None
    write_whole(out / CONFIG, json.dumps(asdict(config), indent=1) + "\n")
    if config.method not in METHODS:
        try:
            state = read_nested(out / STATE)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; delete {out}, or name another folder") from error
        looks = [Look.of(each) for each in state["looks"]]
        return looks, Before(looks[-1].step, looks[-1].forwards, state=state)
    lines = (out / CURVE).read_text().splitlines()
    log, looks = Log.load(out / LOG), [Look.of(json.loads(line)) for line in lines]
    if len(log) < looks[-1].step:
        looks.pop()
    return looks, Before(looks[-1].step, looks[-1].forwards, log.first(looks[-1].step))

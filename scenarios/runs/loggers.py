"""Runs in the loggers that people know: TensorBoard, MLflow and W&B, all into a local directory.

    --log tensorboard:runs/tb    --log mlflow:runs/mlflow    --log wandb:runs/wandb

Steps are rounds; of several problems, names of those after the first begin with problem-K/. MLflow
writes mlflow.db (SQLite) there and W&B runs in its offline mode, so nothing is sent anywhere. A
resumed run goes on in the same TensorBoard curves; MLflow and W&B get a run of their own from there
on.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fedzo.errors import ConfigError
from fedzo.records.history import RoundRecord
from scenarios.runs.experiment import Experiment
from strategies.core.driver import Callback, Snapshot

_COUNTS = (
    "value", "judges", "queries", "gradients", "examples", "floats_up", "floats_down", "bytes_up",
    "bytes_down", "wall_s", "epsilon", "epsilon_run", "noise_std", "shortened", "clients_asked",
    "clients_answered",
)  # fmt: skip
_BATCH = 100
"""Most settings that MLflow takes at once."""


@runtime_checkable
class Logger(Protocol):
    """Where the numbers of rounds go."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def numbers_of(record: RoundRecord) -> dict[str, float]:
    """Return every number of a record by name, those that are known."""
    known = {name: getattr(record, name) for name in _COUNTS}
    known |= {f"metrics/{name}": value for name, value in record.metrics.items()}
    prefix = f"problem-{record.problem}/" if record.problem else ""
    return {f"{prefix}{name}": float(v) for name, v in known.items() if v is not None}


@contextmanager
def logged(texts: Sequence[str], experiment: Experiment) -> Iterator[list[Callback]]:
    """Give a callback for each KIND:DIR; close all when the run has ended, however.

    Raises ConfigError, before anything is written, for an unknown kind, for no directory, and for
    what is not installed.
    """
    chosen = [_parsed(text) for text in texts]
    with ExitStack() as stack:
        callbacks: list[Callback] = []
        for make, folder in chosen:
            logger = make(folder, experiment)
            stack.callback(logger.close)
            callbacks.append(_callback(logger))
        yield callbacks


def _callback(logger: Logger) -> Callback:
    def tell(snapshot: Snapshot) -> None:
        logger.log(snapshot.record.round_index, numbers_of(snapshot.record))

    return tell


def _parsed(text: str) -> tuple[Callable[[Path, Experiment], Logger], Path]:
    kind, colon, folder = text.partition(":")
    if kind not in LOGGERS or not colon or not folder:
        raise ConfigError(
            f"--log {text!r} is not KIND:DIR with a kind of {', '.join(LOGGERS)}; write for example"
            " --log tensorboard:runs/tb"
        )
    make, module = LOGGERS[kind]
    try:
        import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"--log {kind} needs {module.partition('.')[0]} and what it builds on ({error}): pip"
            f" install 'fedzo[{kind}]'"
        ) from error
    return make, Path(folder)


class _TensorBoard:
    """One curve a number; what a killed run has logged beyond where it goes on is dropped."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self._folder = folder
        self._writer: Any = None

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _MLflow:
    """A run of the MLflow experiment named as the scenario, with all settings as parameters."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):  # they tell of every table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        name, artifacts = experiment.scenario, str(folder.absolute() / "artifacts")
        known = self._client.get_experiment_by_name(name)
        home = known.experiment_id if known else self._client.create_experiment(name, artifacts)
        title = f"{experiment.strategy}-seed-{experiment.seed}"
        self._run = self._client.create_run(home, run_name=title).info.run_id
        told = [Param(key, str(value)) for key, value in _settings(experiment).items()]
        for first in range(0, len(told), _BATCH):
            self._client.log_batch(self._run, params=told[first : first + _BATCH])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class _WandB:
    """An offline run of the W&B project fedzo, which `wandb sync` can send later."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            dir=str(folder),
            mode="offline",
            project="fedzo",
            name=f"{experiment.scenario}-{experiment.strategy}-seed-{experiment.seed}",
            config=_settings(experiment),
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log({**numbers, "round": step})

    def close(self) -> None:
        self._run.finish()


def _settings(experiment: Experiment) -> dict[str, Any]:
    names = ("scenario", "strategy", "engine", "num_rounds", "num_clients", "seed", "query_budget")
    return {**{name: getattr(experiment, name) for name in names}, **experiment.settings}


LOGGERS: Mapping[str, tuple[Callable[[Path, Experiment], Logger], str]] = {
    "tensorboard": (_TensorBoard, "torch.utils.tensorboard"),
    "mlflow": (_MLflow, "mlflow.store.tracking.sqlalchemy_store"),
    "wandb": (_WandB, "wandb"),
}
"""Kind -> what makes it, and the module that tells whether it is installed."""

"""How a run shows that it goes on: live on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from fedzo.records.history import RoundRecord
from fedzo.records.status import Limits, Status, begun
from fedzo.records.terminal import markup, say
from scenarios.runs.experiment import Experiment
from strategies.core.driver import Snapshot

EVERY_S = 5.0
"""Seconds between two plain lines, at least."""


class Display:
    """Shows the records of one run as they come."""

    def __init__(self, console: Console, experiment: Experiment, *, every_s: float = EVERY_S):
        self._console, self._every_s = console, every_s
        self.status = begun(Limits(experiment.num_rounds, experiment.query_budget))
        self._name = experiment.name
        self._told_at = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rounds"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task(markup(self._name), total=experiment.num_rounds)
        self._live = Live(console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
            self._live.update(self._view())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, snapshot: Snapshot) -> None:
        """Show a round: a callback of the driver."""
        self.show([snapshot.record])

    def show(self, records: Iterable[RoundRecord]) -> None:
        """Take in records, and show how the run stands after the last."""
        before = self.status
        for record in records:
            self.status = self.status.after(record)
        if self.status is before:
            return
        if self._live:
            self._bar.update(self._task, completed=self.status.record.round_index)
            self._live.update(self._view())
        elif time.monotonic() - self._told_at >= self._every_s:
            self._told_at = time.monotonic()
            say(self._console, f"{self._name}  {self.status.line()}")

    def _view(self) -> Group:
        return Group(self._bar, standing(self.status))


def standing(status: Status) -> Text:
    """Return how a run stands, its names dim."""
    text = Text("  ")
    for name, value in status.parts().items():
        text.append(f"{name} ", style="dim")
        text.append(f"{value}  ")
    return text

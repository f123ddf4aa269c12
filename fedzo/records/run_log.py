"""What happens in runs, told to Python's logging under the name `fedzo`.

    DEBUG    a checkpoint is written
    INFO     a run begins, goes on or ends; how it stands after each round
    WARNING  a client has failed, with its reason; what fedzo warns of
    ERROR    a run cannot go on

In Python, `logging.basicConfig(level=logging.INFO)` shows it; commands have --log-file.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedzo.errors import ConfigError
from fedzo.records.history import RoundRecord
from fedzo.records.status import Limits, begun
from fedzo.records.visible import visible

LOGGER = logging.getLogger("fedzo")
LOGGER.addHandler(logging.NullHandler())
LEVELS = ("debug", "info", "warning", "error")
_HEARD = ("fedzo", "scenarios")
"""The loggers of which a log file takes what they are told; those of libraries stay theirs."""


class VisibleFormatter(logging.Formatter):
    """Keeps what a message quotes from acting on a terminal, or from making a line of its own."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class RunLog:
    """Tells every record of one run."""

    def __init__(self, name: str, limits: Limits) -> None:
        self._name, self._status = name, begun(limits)

    def tell(self, record: RoundRecord) -> None:
        """Say how the run stands after a round, and who has failed in it."""
        self._status = self._status.after(record)
        LOGGER.info("%s: %s", self._name, self._status.line())
        for client, reason in record.failures.items():
            where = f"round {record.round_index}: client {client}"
            LOGGER.warning("%s: %s: %s", self._name, where, reason)


class _Lines(logging.FileHandler):
    """Writes lines, and says once that it cannot."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.failed:
            reason = visible(str(sys.exc_info()[1]))
            sys.stderr.write(f"warning: {self.baseFilename} misses lines: {reason}\n")
        self.failed = True


@contextmanager
def logged_to(path: Path | None, level: str) -> Iterator[None]:
    """Add lines from this level on to the end of a file, or print them where there is none.

    Raises ConfigError for an unknown level, and a file that cannot be opened.
    """
    if level not in LEVELS:
        raise ConfigError(f"--log-level {level} must be one of {', '.join(LEVELS)}")
    try:
        handler = logging.StreamHandler() if path is None else _Lines(path, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--log-file {path} cannot be written: {error.strerror}; name another file"
        ) from error
    handler.setFormatter(VisibleFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    handler.setLevel(level.upper())
    loggers = [logging.getLogger(name) for name in _HEARD]
    before = [each.level for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(min(logging.getLevelName(level.upper()), each.level or logging.CRITICAL))
    try:
        yield
    finally:
        for each, its_level in zip(loggers, before, strict=True):
            each.removeHandler(handler)
            each.setLevel(its_level)
        with suppress(OSError):  # what could not be written has been said
            handler.close()

"""Follow a history that another process writes: only what is new is read."""

import os
from pathlib import Path

from fedzo.errors import CheckpointError
from fedzo.records.history import RoundRecord


class HistoryFollower:
    """Reads the finished lines of a history as they come, also after it was cut by a resume."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._read = 0
        self._told = 0

    def new(self) -> list[RoundRecord]:
        """Return the records since the last call; none while there is no file.

        Raises CheckpointError for a line that is no record, or a file that cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                state = os.fstat(file.fileno())
                if self._file != (state.st_dev, state.st_ino) or state.st_size < self._offset:
                    self._file, self._offset, self._read = (state.st_dev, state.st_ino), 0, 0
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"{self._path} cannot be read: {error.strerror}") from error
        finished = content[: content.rfind(b"\n") + 1]
        self._offset += len(finished)
        records = [self._record(line) for line in finished.splitlines()]
        before, self._read = self._read, self._read + len(records)
        fresh = records[max(0, self._told - before) :]
        self._told = self._read
        return fresh

    def _record(self, line: bytes) -> RoundRecord:
        try:
            return RoundRecord.from_json(line.decode())
        except ValueError as error:
            begin = line[:60].decode(errors="replace")
            raise CheckpointError(
                f"{self._path} has a line that is no round record: {begin!r} ({error})"
            ) from error

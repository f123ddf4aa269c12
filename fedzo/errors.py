"""What can go wrong, in six kinds.

`ConfigError` is the user's to mend before anything has run (exit status 2 on the command line);
the others end a run that had started (exit status 1). A `FedzoWarning` ends nothing.
"""

from typing import Any


class FedzoError(Exception):
    """Base of every error that fedzo raises on purpose."""


class ConfigError(FedzoError, ValueError):
    """A setting or an input is wrong; the text names the value, what is allowed, the remedy."""


class ObjectiveError(FedzoError):
    """An objective cannot do what was asked of it, or returned what cannot be used."""


class MessageError(FedzoError):
    """A message does not decode to an exchange or a reply."""


class CheckpointError(FedzoError):
    """A checkpoint is missing, damaged or belongs to another run."""


class StorageError(FedzoError):
    """A file cannot be written: the disk is full or fails; the run can go on when it is mended."""


class RunError(FedzoError):
    """A run cannot go on, for example because too few clients answered.

    `result` is what it had until then, a RunResult, of a run by `simulate` or `federate`;
    `unrecorded` counts the queries of the round that it ended, which are in no record.
    """

    result: Any = None
    unrecorded: int = 0


class FedzoWarning(UserWarning):
    """Something is probably not what the user wants; the text says what and how to change it."""

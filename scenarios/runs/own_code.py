"""code.json: the files of the user's that a run was made of, as they were when it began.

A resumed run uses the files as they are now; where they differ, that is said.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

from fedzo.errors import ConfigError, FedzoWarning
from fedzo.records.storage import write_whole
from fedzo.records.strict_json import strict_json
from fedzo.user_code import REFERENCE, is_reference, sources
from scenarios.runs.experiment import Experiment

CODE = "code.json"


def code_of(experiment: Experiment) -> dict[str, str]:
    """Return the text of every file that an experiment names, and of the neighbors they import."""
    found: dict[str, str] = {}
    for reference in _references(experiment):
        where = reference.rpartition(":")[0]
        if where.endswith(".py"):
            found.update(sources(where))
    return found


def keep_code(folder: Path, experiment: Experiment) -> None:
    """Write the files of a run that begins; of one that goes on, warn of those that have changed.

    Raises OSError where the folder cannot be written, ConfigError for a damaged code.json.
    """
    now, file = code_of(experiment), folder / CODE
    if not now:
        return
    if not file.exists():
        write_whole(file, strict_json(now, indent=1) + "\n")
        return
    try:
        before: dict[str, str] = json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"{file} is damaged ({error}); restore it, or delete it") from error
    for name in [name for name in {**before, **now} if before.get(name) != now.get(name)]:
        warnings.warn(
            f"{name} has changed since the run in {folder} began"
            f" ({_difference(before.get(name, ''), now.get(name, ''))}); the run goes on with what"
            f" it says now, and {file} holds what it said",
            FedzoWarning,
            stacklevel=2,
        )


def _references(experiment: Experiment) -> Iterator[str]:
    for text in (experiment.strategy, *experiment.settings.values()):
        if isinstance(text, str):
            yield from [text] if is_reference(text) else REFERENCE.findall(text)


def _difference(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    pairs = enumerate(zip(old, new, strict=False), start=1)
    line = next((number for number, (one, other) in pairs if one != other), None)
    return f"first in line {line or min(len(old), len(new)) + 1}"

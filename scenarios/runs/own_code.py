"""The user's files that a run was made of, as they were when it began.

code.json has what code said: a resumed run uses it as it is now; where it differs, that is said.
data.json has the digests of files of data: a run does not go on with others, for F would be another
function.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

from fedzo.errors import ConfigError, FedzoWarning
from fedzo.records.storage import sha256_of, write_whole
from fedzo.records.strict_json import strict_json
from fedzo.user_code import REFERENCE, is_reference, sources
from scenarios.runs.experiment import Experiment

CODE, DATA = "code.json", "data.json"


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
    before = _read(file)
    if not before:
        write_whole(file, strict_json(now, indent=1) + "\n")
        return
    for name in [name for name in {**before, **now} if before.get(name) != now.get(name)]:
        warnings.warn(
            f"{name} has changed since the run in {folder} began"
            f" ({_difference(before.get(name, ''), now.get(name, ''))}); the run goes on with what"
            f" it says now, and {file} holds what it said",
            FedzoWarning,
            stacklevel=2,
        )


def data_of(experiment: Experiment) -> dict[str, str]:
    """Return the SHA-256 of every file that a setting of the scenario names, but code."""
    found = {}
    for text in experiment.section("scenario").values():
        file = Path(text) if isinstance(text, str) and ("." in text or "/" in text) else None
        if file is not None and file.suffix != ".py" and _is_file(file):
            found[str(text)] = sha256_of(file)
    return found


def keep_data(folder: Path, experiment: Experiment) -> None:
    """Write the digests of a run that begins; raises ConfigError where one that goes on differs.

    Raises OSError where the folder or a file cannot be read or written.
    """
    now, file = data_of(experiment), folder / DATA
    if not now:
        return
    before = _read(file)
    changed = sorted(name for name in now if before.get(name, now[name]) != now[name])
    if changed:
        raise ConfigError(
            f"{', '.join(changed)} has changed since the run in {folder} began (data.json), and F"
            " with it; restore it, or begin another run in another directory"
        )
    if now != before:
        write_whole(file, strict_json({**before, **now}, indent=1) + "\n")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no path at all
        return False


def _read(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        read: dict[str, str] = json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"{file} is damaged ({error}); restore it, or delete it") from error
    return read


def _references(experiment: Experiment) -> Iterator[str]:
    for text in (experiment.strategy, *experiment.settings.values()):
        if isinstance(text, str):
            yield from [text] if is_reference(text) else REFERENCE.findall(text)


def _difference(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    pairs = enumerate(zip(old, new, strict=False), start=1)
    line = next((number for number, (one, other) in pairs if one != other), None)
    return f"first in line {line or min(len(old), len(new)) + 1}"

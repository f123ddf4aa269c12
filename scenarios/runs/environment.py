"""environment.json: what a run was made on; an entry each time it was begun or resumed."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fedzo
from fedzo import __version__
from fedzo.records.storage import write_whole
from fedzo.records.strict_json import strict_json

ENVIRONMENT = "environment.json"
_GIT_S = 5.0
_PACKAGES = ("torch", "numpy", "scipy", "gpytorch", "flwr", "ray")


def note_environment(out: Path) -> None:
    """Add what this process runs on to the file; one that cannot be read is begun anew."""
    path = out / ENVIRONMENT
    write_whole(path, strict_json([*read_environment(out), _here()], indent=1) + "\n")


def read_environment(out: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's directory; none where there are none to read."""
    try:
        found = json.loads((out / ENVIRONMENT).read_text())
    except (OSError, ValueError):
        return []
    entries = found if isinstance(found, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _here() -> dict[str, Any]:
    return {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "fedzo": __version__,
        "commit": commit_of(Path(fedzo.__file__).parent),
        "host": platform.node(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }


@lru_cache
def commit_of(package: Path) -> str | None:
    """Return the commit of a package's sources, "+" after it where Python files have changed since.

    None where they are in no checkout of git: a wheel has its version.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    changed = _git(package, "diff", "--quiet", "HEAD", "--", ":/*.py") is None
    return f"{_git(package, 'rev-parse', 'HEAD')}{'+' if changed else ''}"


def _git(place: Path, *arguments: str) -> str | None:
    """Return what git says; None where it fails, or is not there."""
    command = ["git", "-C", str(place), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""environment.json: what a run was made on; an entry each time it was begun or resumed."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedzo import __version__
from fedzo.records.storage import write_whole
from fedzo.records.strict_json import strict_json

ENVIRONMENT = "environment.json"
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
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

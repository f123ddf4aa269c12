"""Directories of `--out` that hold no run: what fedzo has left there, for messages."""

from pathlib import Path


def other_kind(path: Path) -> str:
    """Return what fedzo has left in a directory that holds no run; "" where it is nothing known."""
    if (path / "curve.jsonl").is_file():
        return "it is of `fedzo finetune`: see its curve.png, or `fedzo report`"
    if (path / "report.json").is_file() or (path / "table.json").is_file():
        return "it is of `fedzo attack`: `fedzo report` shows it"
    return ""

"""A page of the documents, run from its first block to its last in one folder and one namespace."""

import contextlib
import io
import os
import shlex
from pathlib import Path
from typing import Any

from document_blocks import Block, blocks, check, run
from typer.testing import CliRunner

from scenarios.cli import app

STARTS_PROCESSES = ("fedzo deploy", "--engine ray", "--engine flower", "--processes")
"""Commands with these run in a process of their own, which their children then belong to."""


def run_page(path: Path, folder: Path, left_out: tuple[str, ...] = ()) -> None:
    """Run a page's blocks; raises AssertionError where one prints something else than is shown.

    The working directory is the folder already. Commands that begin with one of `left_out` are not
    run. Code that shows nothing must print nothing; of commands nothing need be shown.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(path.read_text()):
        if block.code.startswith(left_out):
            continue
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.code)
            continue
        printed = _printed(block, folder, names)
        if block.shown is not None or not block.is_command:
            check(block.shown or "", printed)


def _printed(block: Block, folder: Path, names: dict[str, Any]) -> str:
    """Return what a block prints, in this process where that can be: torch is here already."""
    if not block.is_command:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block.code, "<block>", "exec"), names)
        return out.getvalue()
    if any(word in block.code for word in STARTS_PROCESSES):
        return run(block, folder)
    words = shlex.split(block.code)[1:]
    done = CliRunner().invoke(app, words, env={**os.environ, "COLUMNS": "120"})
    assert done.exit_code == 0, (block.code, done.stderr, done.exception)
    return done.stdout

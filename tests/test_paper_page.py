"""docs/paper.md: its commands and its code run one after the other, and print what it shows."""

import contextlib
import importlib
import io
import re
import shlex
from pathlib import Path

import pytest
from document_blocks import Block, blocks, check
from typer.testing import CliRunner

from scenarios.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "paper.md"


def printed_by(block: Block) -> str:
    """Return what a block prints, in this process: seven processes would take a minute."""
    if block.is_command:
        done = CliRunner().invoke(app, shlex.split(block.code)[1:], env={"COLUMNS": "120"})
        assert done.exit_code == 0, (block.code, done.stderr)
        return done.stdout
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block.code, str(PAGE), "exec"), {})
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.source_tree
def test_every_block_prints_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    simulating = importlib.import_module("scenarios.runs.simulate")
    monkeypatch.setattr(simulating, "_draw", lambda *given: None)  # the figures of single runs
    found = [*blocks(PAGE.read_text())]
    assert len(found) == 9
    for block in found:
        assert block.shown is not None
        check(block.shown, printed_by(block))
    assert {path.name for path in tmp_path.iterdir()} == {
        *("runs", "figure.pdf", "panels.pdf", "table.tex", "table.md", "table.csv"),
    }
    assert re.search(r"\$\\mathbf\{0\.076\d*\}\$", (tmp_path / "table.tex").read_text())
    assert "| **0.076" in (tmp_path / "table.md").read_text()

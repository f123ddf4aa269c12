"""Code and commands of a document, what is shown below them, and whether that is what they print.

A fenced block `python` is a script; `text` right after it is what it prints. In a block `console` a
line `$ fedzo ...` is a command, and what follows what it prints; `bash` holds commands alone. A
block of any kind with `title="name"` is a file of that name.
"""

import functools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from golden.runs import GOLDEN, arithmetic

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", flags=re.S | re.M)
_TITLE = re.compile(r'title="([^"]+)"')
_RUN = ("python", "console", "bash", "sh", "shell")
_SHOWN = ("text", "toml", "ini", "json", "csv")
_COMMAND = re.compile(r"\s*(\$ |(\.venv/bin/)?(fedzo|flwr|python3?|pip|make) \S)")
_NO_COMMENT = re.compile(r"\s+#\s.*")
_NUMBER = re.compile(r"-?[\d,]*\.?\d+(?:e[+-]?\d+)?")
_TIMED = ("seconds", "MB/s", "ETA")
"""Lines with these differ from run to run."""


@dataclass(frozen=True)
class Block:
    """What is run, and what is shown, None where nothing is; or a file to write."""

    code: str
    shown: str | None
    is_command: bool
    file: str = ""

    @property
    def is_foreign(self) -> bool:
        """Whether it is a command of another program."""
        return self.is_command and not self.code.startswith("fedzo ")


def blocks(text: str) -> Iterator[Block]:
    """Yield what a document runs, in order: code, files and commands of fedzo."""
    yield from (block for block in all_blocks(text) if not block.is_foreign)


def all_blocks(text: str) -> Iterator[Block]:
    """Yield the same, and the commands of other programs."""
    found = [(m.group(1), m.group(2), m.start(), m.end()) for m in _FENCE.finditer(text)]
    for index, (info, body, _, end) in enumerate(found):
        kind = info.partition(" ")[0]
        title = _TITLE.search(info)
        if title:
            yield Block(body, None, False, title.group(1))
        elif kind == "python":
            after = found[index + 1] if index + 1 < len(found) else None
            follows = after and after[0] == "text" and not text[end : after[2]].strip()
            yield Block(body, after[1] if after and follows else None, False)
        elif kind == "console":
            for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
                command, _, shown = part.replace("\\\n", " ").partition("\n")
                yield Block(command, shown, True)
        elif kind in ("bash", "sh", "shell"):
            yield from (Block(command, None, True) for command in _commands(body))


def hidden(text: str) -> Iterator[str]:
    """Yield what looks like a command, or is marked as code, where `all_blocks` does not look."""
    for found in _FENCE.finditer(text):
        kind = found.group(1).partition(" ")[0]
        if kind not in (*_RUN, *_SHOWN, ""):
            yield f"```{found.group(1)}"
        elif not kind:
            yield from (line for line in found.group(2).splitlines() if _COMMAND.match(line))
    yield from re.findall(r"^(?: {4,}|\t)(?:\$ )?fedzo .*", _FENCE.sub("", text), flags=re.M)
    yield from re.findall(r"^(?: +```|~~~).*", _FENCE.sub("", text), flags=re.M)


def _commands(body: str) -> Iterator[str]:
    """Yield the commands of a shell, each in one line, as far as its quotes and `\\` reach."""
    waiting = ""
    for line in body.replace("\\\n", " ").splitlines():
        waiting += "" if line.startswith("#") else line
        if waiting.count("'") % 2 or waiting.count('"') % 2:
            waiting += " "
        elif waiting.strip():
            yield _NO_COMMENT.sub("", waiting).removeprefix(".venv/bin/")
            waiting = ""


def run(block: Block, folder: Path) -> str:
    """Return what a block prints; its end must be a good one."""
    words = shlex.split(block.code)[1:] if block.is_command else []
    command = ["-m", "scenarios.cli", *words] if block.is_command else ["-c", block.code]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True, text=True, cwd=folder, timeout=600, check=False,
        env={**os.environ, "COLUMNS": "120", "PYTHONPATH": ""} if not words else
        {**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    assert done.returncode == 0, (block.code, done.stderr)
    return done.stdout


@functools.cache
def _digits() -> float:
    """Return how far numbers may be apart, relatively.

    Of the same size on a processor whose arithmetic is not that of the golden runs: attacks and
    training go other ways there.
    """
    is_golden = json.loads(GOLDEN.read_text())["arithmetic"] == arithmetic()
    return 1e-3 if is_golden else 0.75


def check(shown: str, printed: str, rel: float | None = None) -> None:
    """Compare word by word: numbers to three digits, for processors round otherwise."""
    rel = _digits() if rel is None else rel
    told, found = ([*_lines(text)] for text in (shown, printed))
    assert len(told) == len(found), (shown, printed)
    for one, other in zip(told, found, strict=True):
        if any(word in one for word in _TIMED):
            continue
        assert _NUMBER.sub("#", one).split() == _NUMBER.sub("#", other).split(), (one, other)
        for a, b in zip(_numbers(one), _numbers(other), strict=True):
            assert abs(a - b) <= rel * max(abs(a), abs(b)) + 1e-9, (one, other)


def _lines(text: str) -> Iterator[str]:
    """Yield the lines that hold something, without a table's column of seconds."""
    timed = None
    for line in text.splitlines():
        cells = re.split("[┃│]", line)
        if "┃" in line:
            timed = next((i for i, cell in enumerate(cells) if cell.strip() == "wall s"), None)
        if timed is not None and len(cells) > timed:
            line = "│".join(cells[:timed] + cells[timed + 1 :])
        if line.strip(" ━─┳┏┓┡╇┩└┴┘┌┬┐"):
            yield line.strip()


def _numbers(line: str) -> list[float]:
    return [float(n.replace(",", "")) for n in _NUMBER.findall(line) if n.strip(",")]

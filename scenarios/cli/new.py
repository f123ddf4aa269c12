"""The command `fedzo new`."""

import ast
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fedzo.config import unknown_key
from fedzo.errors import ConfigError
from fedzo.records.storage import write_whole
from fedzo.user_code import installed
from scenarios.cli.options import guard

_OURS = ("fedzo", "strategies", "clients", "scenarios")
_STARTERS = Path(__file__).with_name("starters")


@dataclass(frozen=True, slots=True)
class Kind:
    """What can be begun; {reference} in the command is file.py:Name."""

    is_class: bool
    command: str


KINDS = {
    "strategy": Kind(True, "fedzo run quadratic --strategy {reference} --rounds 50"),
    "objective": Kind(False, "fedzo run {reference} --strategy fzoos --clients 4 --rounds 20"),
    "attacker": Kind(True, "fedzo attack mnist --attacker {reference} --radius 0.2 --images 5"),
    "aggregator": Kind(
        False,
        "fedzo run quadratic --strategy fedzo --rounds 50 --clients 8"
        " --set strategy.aggregator={reference} --set strategy.num_byzantine=2"
        " --set byzantine.num_clients=2 --set byzantine.attack=sign_flip",
    ),
}


def new_command(
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS))],
    name: Annotated[str, typer.Argument(help="what to call it; the file is called the same")],
) -> None:
    """Write a strategy, an objective, an attacker or an aggregator of your own that runs at once.

    Example: fedzo new strategy Drift
    """
    typer.echo(guard(lambda: _written(kind, name)))


def _names_in(text: str) -> set[str]:
    """Return the names that a program gives, or calls something by."""
    found = ast.walk(ast.parse(text))
    names = [
        getattr(node, field, None) for node in found for field in ("id", "name", "arg", "asname")
    ]
    return {name for name in names if isinstance(name, str)}


def _written(kind: str, name: str) -> str:
    """Write the file, and return what to do with it."""
    if kind not in KINDS:
        raise unknown_key(kind, KINDS, what="kind")
    chosen = KINDS[kind]
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ConfigError(
            f"name {name!r} must be letters, digits and _, beginning with a letter, such as Drift"
        )
    if keyword.iskeyword(name.lower()):
        raise ConfigError(f"name {name!r} is a word of Python's own; name it else")
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    called = "".join(part[:1].upper() + part[1:] for part in snake.split("_"))
    file = Path(f"{snake}.py")
    if snake in _OURS:
        raise ConfigError(f"{snake} is a package of fedzo, which {file} would hide; name it else")
    if installed(snake, Path.cwd()) is not None:
        raise ConfigError(f"a module {snake} is installed, which {file} would hide; name it else")
    if file.exists():
        raise ConfigError(f"{file} exists already; give another name, or move it away")
    text = (_STARTERS / f"{kind}.py").read_text()
    if {snake, called} & (_names_in(text) - {"starter", "Starter"}):
        raise ConfigError(f"the file calls something else {snake} or {called}; name it else")
    write_whole(file, text.replace("Starter", called).replace("starter", snake))
    reference = f"{file}:{called if chosen.is_class else snake}"
    return (
        f"wrote {file}, {len(text.splitlines())} lines. Run it:\n\n"
        f"  {chosen.command.format(reference=reference)}\n\n"
        f"and see what it is made of: fedzo list {reference}"
    )

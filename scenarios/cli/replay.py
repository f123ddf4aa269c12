"""The command `fedzo replay`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedzo.records.terminal import say, say_place
from scenarios.cli.options import JsonOption, finish, guard, prepare


def replay_command(
    directory: Annotated[Path, typer.Argument(help="of a run of `fedzo finetune --out`")],
    json_output: JsonOption = False,
) -> None:
    """Make the module of a run anew from its log alone, without asking for a single loss.

    Writes model.safetensors and prints the SHA-256 of its numbers, which is the same wherever the
    log is replayed.

    Example: fedzo replay runs/fzoo
    """
    prepare(1)
    from scenarios.finetune.training import MODEL, replayed  # torch, which the help spares

    def work() -> dict[str, Any]:
        digest = replayed(directory)
        if not json_output:
            console = Console()
            say_place(console, "module", directory / MODEL)
            say(console, f"sha256 of its numbers: {digest}")
        return {"module": str(directory / MODEL), "sha256": digest}

    finish(guard(work), json_output)

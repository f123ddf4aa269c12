"""The command `fedzo replay`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fedzo.records.terminal import say, say_place
from scenarios.cli.options import JsonOption, finish, guard, prepare


def replay_command(
    directory: Annotated[
        Path,
        typer.Argument(help="of `fedzo finetune --out`, or of a federation by `seed_scalar`"),
    ],
    json_output: JsonOption = False,
) -> None:
    """Make the module of a run anew from its log alone, without asking for a single loss.

    Writes model.safetensors and prints the SHA-256 of its numbers, which is the same wherever the
    log is replayed.

    Example: fedzo replay runs/fzoo
    """
    prepare(1)
    from fedzo.records.tensor_file import write_tensors  # torch, which the help spares
    from scenarios.finetune.training import CONFIG, MODEL, replayed
    from scenarios.runs.replaying import digest_of, replay_federation

    def work() -> dict[str, Any]:
        alone = (directory / CONFIG).exists()
        tensors = replayed(directory) if alone else replay_federation(directory)
        write_tensors(directory / MODEL, tensors, "{}")
        digest = digest_of(tensors)
        if not json_output:
            console = Console()
            say_place(console, "module", directory / MODEL)
            say(console, f"sha256 of its numbers: {digest}")
        return {"module": str(directory / MODEL), "sha256": digest}

    finish(guard(work, json_output=json_output), json_output)

"""The command `fedzo finetune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedzo.records.terminal import markup, say_place, title
from scenarios.cli.options import (
    JsonOption,
    SeedOption,
    ThreadsOption,
    finish,
    guard,
    prepare,
    stderr,
)

if TYPE_CHECKING:
    from scenarios.finetune.training import Look


def finetune_command(
    task: Annotated[
        str,
        typer.Argument(
            help="shifted_digits, digits_transformer, digits_cnn, corrupted_photos, snippets, order"
            " or order_marked"
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            help="a zeroth-order method, activity, or first_order; `fedzo list` names them"
        ),
    ] = "zo_sgd",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting of the method, such as rank=4"),
    ] = None,
    lr: Annotated[float, typer.Option(help="of a step; 0: one that suits method and size")] = 0.0,
    decay: Annotated[
        bool, typer.Option("--decay", help="let lr fall to 0 in a straight line over the run")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="examples of a step")] = 16,
    forwards: Annotated[int, typer.Option(help="example-forwards after which it ends")] = 20_000,
    looks: Annotated[int, typer.Option(help="at the test examples, in even distances")] = 11,
    stacked: Annotated[
        bool,
        typer.Option("--stacked", help="ask a small network at all places of a step at once"),
    ] = False,
    workers: Annotated[
        int, typer.Option(help="processes on Ray that ask the places of a step together")
    ] = 1,
    data_parallel: Annotated[
        int, typer.Option(help="how many of the workers share a batch instead of places")
    ] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one")] = "cpu",
    address: Annotated[str, typer.Option(help="of a running Ray cluster; empty: one here")] = "",
    seed: SeedOption = 0,
    layers: Annotated[int, typer.Option(help="last layers that are trained; -1: the task's")] = -1,
    adapters: Annotated[
        int, typer.Option(help="rank of adapters that are trained in the layers' place; 0: none")
    ] = 0,
    bits: Annotated[
        int,
        typer.Option(
            help="quantize linear layers to so many bits and train their scales; 0: none, or 4 for"
            " qzo"
        ),
    ] = 0,
    examples: Annotated[int, typer.Option(help="to train on; 0: the task's")] = 0,
    data_dir: Annotated[str, typer.Option(help="folder of the archive of text tasks")] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="folder for curve, log or state, and module; a run in it goes on"),
    ] = None,
    threads: ThreadsOption = 1,
    json_output: JsonOption = False,
) -> None:
    """Train a network on a task by one method, and see its test accuracy by forward passes.

    Example: fedzo finetune shifted_digits --method fzoo --forwards 4000 --out runs/fzoo
    """
    prepare(threads)
    from scenarios.finetune.trainers import Finetuning  # torch, which the help spares
    from scenarios.finetune.training import finetune

    def work() -> dict[str, Any]:
        config = Finetuning(
            task=task,  # type: ignore[arg-type]
            method=method,
            settings=" ".join(settings or []),
            lr=lr,
            decay=decay,
            batch_size=batch_size,
            forwards=forwards,
            looks=looks,
            seed=seed,
            stacked=stacked,
            workers=workers,
            data_parallel=data_parallel,
            address=address,
            device=device,  # type: ignore[arg-type]
            layers=layers,
            adapters=adapters,
            examples=examples,
            data_dir=data_dir,
            bits=bits,
        )
        found = finetune(config, out=out, told=_tell)
        if not json_output:
            _print(Console(), f"{task} by {method}", found, out)
        return {"task": task, "method": method, "looks": [_row(look) for look in found]}

    again = "with --out the same command goes on"
    finish(guard(work, json_output=json_output, again=again), json_output)


def _tell(look: "Look") -> None:
    stderr.print(
        markup(
            f"{look.forwards:,} forwards, step {look.step:,}: test accuracy"
            f" {look.test_accuracy:.3f}, loss {look.test_loss:.3f}, {look.seconds:.0f} s"
        )
    )


def _row(look: "Look") -> dict[str, Any]:
    return {name: getattr(look, name) for name in look.__dataclass_fields__}


def _print(console: Console, name: str, looks: "list[Look]", out: Path | None) -> None:
    table = Table(title=title(name), title_justify="left")
    for column in ("forwards", "steps", "train loss", "test loss", "test accuracy", "seconds"):
        table.add_column(column, justify="right", overflow="fold")
    for look in looks:
        table.add_row(
            f"{look.forwards:,}",
            f"{look.step:,}",
            "" if look.train_loss != look.train_loss else f"{look.train_loss:.4f}",
            f"{look.test_loss:.4f}",
            f"{look.test_accuracy:.4f}",
            f"{look.seconds:.1f}",
        )
    console.print(table)
    if out is not None:
        say_place(console, "run", out)

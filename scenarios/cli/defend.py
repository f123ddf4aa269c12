"""`fedzo defend`: train a defense of a victim through its answers alone, and certify it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from scenarios.cli.options import JsonOption, finish, guard, prepare


def defend_command(
    victim: Annotated[
        str,
        typer.Argument(help="as of `fedzo attack`: mnist, file.py:name, model.onnx, http://..."),
    ],
    sigma: Annotated[
        float | None,
        typer.Option(
            help="of the noise that it is smoothed with, pixels in [0, 1]", show_default="1.0"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="of zeroth-order training; 0 trains on images alone", show_default="300"),
    ] = None,
    certify: Annotated[int, typer.Option(help="test images that are certified")] = 50,
    samples: Annotated[int, typer.Option(help="noisy copies for a certificate")] = 1000,
    seed: Annotated[
        int | None, typer.Option(help="determines everything random", show_default="0")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="a setting of the training or of how the victim is reached, such as"
            " defense.estimator=forward, defense.lr=0.001, victim.data=mine.npz; may be repeated",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="directory for the defense and a figure")] = None,
    json_output: JsonOption = False,
) -> None:
    """Defend a model that can only be queried: ZO-AE-DS (Zhang et al. 2022).

    A denoiser and an encoder are trained through the model's scores by zeroth-order gradients, and
    certified beside the undefended smoothed model (Cohen et al. 2019). Of your own data, whose
    height and width divide by 4, the first images are certified and all others train; those of a
    folder are drawn.

    Attack it then with: fedzo attack mnist --wrap defense=DIRECTORY

    Example: fedzo defend mnist --steps 100 --out runs/defense
    """
    prepare(1)

    def work() -> dict[str, Any]:
        from scenarios.cli.defending import defend  # torch, which the help spares

        options = {"sigma": sigma, "steps": steps, "seed": seed}
        return defend(victim, options, settings or [], certify, samples, out, quiet=json_output)

    finish(guard(work, json_output=json_output), json_output)

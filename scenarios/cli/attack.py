"""`fedzo attack`: attack one victim that answers with scores, labels or an order."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fedzo.attacks.names import COORDINATES, NORMS
from fedzo.catalog import ATTACKER_LINES
from scenarios.cli.options import DryOption, JsonOption, SeedOption, finish, guard, prepare
from scenarios.victims.names import shipped_names


def attack_command(
    victim: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(shipped_names())}; file.py:name (torch module or function); a .onnx"
            " file; an http:// address; command:PROGRAM ARGUMENTS"
        ),
    ],
    attacker: Annotated[
        list[str] | None,
        typer.Option(
            help=f"one of {', '.join(ATTACKER_LINES)}, or file.py:Name (default: best for the"
            " victim); several with commas between them, or repeated"
        ),
    ] = None,
    norm: Annotated[str, typer.Option(help=f"of the perturbation: {', '.join(NORMS)}")] = "linf",
    radius: Annotated[
        str | None,
        typer.Option(
            help="of the ball, such as 0.1, 8/255, or 0.05,0.1,0.2 for a curve (default: linf 0.1,"
            " l2 1.5, l0 40 pixels, patch side 8; of photographs 4/255, 2, 400, 32)"
        ),
    ] = None,
    query_budget: Annotated[int, typer.Option(help="most queries an image")] = 1000,
    images: Annotated[int, typer.Option(help="images that are attacked")] = 20,
    seed: SeedOption = 0,
    target: Annotated[
        str | None, typer.Option(help="the class to be answered as: its number or its name")
    ] = None,
    loss: Annotated[str, typer.Option(help="margin, cross_entropy or boundary")] = "margin",
    universal: Annotated[
        bool, typer.Option("--universal", help="one perturbation for all images, one budget")
    ] = False,
    placements: Annotated[
        int,
        typer.Option(
            help="with norm patch: one patch for so many places in an image, drawn by chance; 0:"
            " where it works best"
        ),
    ] = 0,
    coordinates: Annotated[
        str, typer.Option(help=f"in which to search: {', '.join(COORDINATES)}, such as waves:7")
    ] = "pixels",
    levels: Annotated[
        int | None,
        typer.Option(
            help="pixel values are whole steps of 1/LEVELS, 0 for any (default: 255 with --png and"
            " for networks of photographs, else 0)"
        ),
    ] = None,
    confirm: Annotated[
        int,
        typer.Option(
            help="answers that a success takes; 0: one, and 9 of a victim that is seen to be noisy"
        ),
    ] = 0,
    expect: Annotated[
        int,
        typer.Option(help="answers that are averaged for a proposal, of a victim that is random"),
    ] = 1,
    blind: Annotated[
        float,
        typer.Option(
            help="std of noise under which proposals are asked, for a victim that detects"
            " near-duplicates; what succeeds is asked as it is"
        ),
    ] = 0.0,
    confidence: Annotated[
        float,
        typer.Option(
            help="by scores: how far below 0 the loss of a success must be to end the attack, for"
            " one that is to hold for other models"
        ),
    ] = 0.0,
    wrap: Annotated[
        list[str] | None,
        typer.Option(
            help="put around the victim: labels, order, top=K, rounded=DECIMALS, noisy=STD,"
            " limit=QUERIES, latency=SECONDS, detector=DISTANCE, smoothed=SIGMA, jpeg=QUALITY,"
            " bits=BITS, defense=DIRECTORY; may be repeated"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="a setting of the attacker or of how the victim is reached, such as"
            " attacker.spread=0.3, victim.tells=labels, victim.data=mine.npz,"
            " victim.rate_limit=5; of several attackers also square.area=0.3; may be repeated",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="directory for report.json, figure.png, the images")
    ] = None,
    png: Annotated[
        bool,
        typer.Option(
            "--png", help="also write PNG files, of just what the victim was asked (levels 255)"
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="use the answers that lie in --out; pay none twice")
    ] = False,
    dry_run: DryOption = False,
    json_output: JsonOption = False,
) -> None:
    """Attack one victim, image by image, and count every query.

    For testing models that you own or were asked to test. `fedzo run attack` is the federated one.

    Example: fedzo attack mnist --radius 0.2 --out runs/attack
    Example: fedzo attack mnist --radius 8/255,0.1,0.2 --attacker thompson,square --out runs/curve
    Example: fedzo attack my.py:model --set victim.data=photos/ --radius 4/255 --out runs/x --png
    Example: fedzo attack http://127.0.0.1:8000/ --set victim.tells=labels --set victim.rate_limit=5
    """
    prepare(1)

    def work() -> dict[str, Any]:
        from scenarios.cli.attacking import Words, attack  # torch, which the help spares

        return attack(
            Words(
                victim=victim,
                attacker=",".join(attacker) if attacker else None,
                norm=norm,
                radius=radius,
                query_budget=query_budget,
                images=images,
                seed=seed,
                target=target,
                loss=loss,
                universal=universal,
                placements=placements,
                coordinates=coordinates,
                levels=levels,
                confirm=confirm,
                expect=expect,
                blind=blind,
                confidence=confidence,
                wrap=wrap or [],
                settings=settings or [],
                out=out,
                png=png,
                resume=resume,
                dry_run=dry_run,
                quiet=json_output,
            )
        )

    finish(guard(work, json_output=json_output), json_output)

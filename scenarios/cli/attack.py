"""`fedzo attack`: attack one victim that answers with scores, labels or an order."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.coordinates import COORDINATES, Coordinates
from fedzo.attacks.region import NORMS
from fedzo.config import build_config, unknown_key
from fedzo.errors import ConfigError
from fedzo.number import read_number
from fedzo.objectives.addresses import public_name
from fedzo.records.lock import locked
from fedzo.records.storage import storing
from fedzo.records.terminal import markup, say, say_place
from scenarios.attacks.attack_table import AttackTable
from scenarios.attacks.attackers import ATTACKERS
from scenarios.attacks.picture_files import PNG_LEVELS, check_pictures
from scenarios.attacks.plan import table_of
from scenarios.attacks.single_attack import Plan, Report, attack_by_plans
from scenarios.attacks.table_report import print_result, write_result
from scenarios.cli.options import JsonOption, SeedOption, by_section, finish, guard, prepare, stderr
from scenarios.victims.attack_data import class_number
from scenarios.victims.shipped import shipped_names
from scenarios.victims.victim_sources import SourceSettings, check_seed, open_source

_JOURNAL = "answers.jsonl"


def attack_command(
    victim: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(shipped_names())}; file.py:name (torch module or function); a .onnx"
            " file; an http:// address; command:PROGRAM ARGUMENTS"
        ),
    ],
    attacker: Annotated[
        str | None,
        typer.Option(
            help=f"one of {', '.join(ATTACKERS)}, or file.py:Name (default: best for the victim);"
            " several with commas between them"
        ),
    ] = None,
    norm: Annotated[str, typer.Option(help=f"of the perturbation: {', '.join(NORMS)}")] = "linf",
    radius: Annotated[
        str | None,
        typer.Option(
            help="of the ball, such as 0.1, 8/255, or 0.05,0.1,0.2 for a curve (default: linf 0.1,"
            " l2 1.5, l0 40 pixels, patch side 8)"
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
    coordinates: Annotated[
        str, typer.Option(help=f"in which to search: {', '.join(COORDINATES)}, such as waves:7")
    ] = "pixels",
    levels: Annotated[
        int, typer.Option(help="pixel values are whole steps of 1/LEVELS, such as 255; 0: any")
    ] = 0,
    confirm: Annotated[
        int,
        typer.Option(
            help="answers that a success takes; 0: one, and 9 of a victim that is seen to be noisy"
        ),
    ] = 0,
    wrap: Annotated[
        list[str] | None,
        typer.Option(
            help="put around the victim: labels, order, top=K, rounded=DECIMALS, noisy=STD,"
            " limit=QUERIES, latency=SECONDS, detector=DISTANCE, smoothed=SIGMA, defense=DIRECTORY;"
            " may be repeated"
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
        attackers = (attacker or "").split(",")
        radii = _radii(_one_of(norm, NORMS, "norm"), radius)
        several = len(attackers) > 1 or len(radii) > 1
        own = filter(None, attackers if several else ())
        parts = by_section(settings or [], ("attacker", "victim", *own))
        check_seed(parts["victim"], wrap or [])
        shown = public_name(victim)
        plan = Plan(
            num_images=images,
            attacker=attackers[0],
            attacker_settings=parts["attacker"],
            settings=build_config(
                AttackSettings,
                {
                    "norm": norm,
                    "radius": radii[0],
                    "query_budget": query_budget,
                    "seed": seed,
                    "loss": loss,
                    "universal": universal,
                    "levels": PNG_LEVELS if png and not levels else levels,
                    "confirm": confirm,
                    "coordinates": _coordinates(coordinates),  # type: ignore[dict-item]
                },
                section="attack",
            ),
        )
        plans = table_of(plan, attackers, radii, parts) if several else [plan]
        source = build_config(SourceSettings, {"seed": seed, **parts["victim"]}, section="victim")
        if png and not out:
            raise ConfigError("--png needs a directory for the files: add --out")
        with locked(out):
            reports = _run(
                victim, wrap or [], source, plans, target, out, resume, png=png, quiet=json_output
            )
            found = AttackTable(reports) if several else reports[0]
            if out:
                with storing(out):
                    write_result(out, shown, found, pictures=png)
        if not json_output:
            print_result(Console(), shown, found)
            if out:
                say_place(stderr, "figure", out / "figure.png")
        return {"victim": shown, **found.summary(), "out": str(out) if out else None}

    finish(guard(work), json_output)


_RADIUS = {"linf": 0.1, "l2": 1.5, "l0": 40.0, "patch": 8.0}


def _run(
    name: str,
    wrappers: list[str],
    settings: SourceSettings,
    plans: Sequence[Plan],
    target: str | None,
    out: Path | None,
    resume: bool,
    *,
    png: bool,
    quiet: bool,
) -> list[Report]:
    """Open the victim and attack it, with progress on a terminal."""
    journal = out / _JOURNAL if out else None
    if resume and not (journal and journal.exists()):
        raise ConfigError(f"--resume needs --out with {_JOURNAL} of an earlier attack in it")
    if journal and journal.exists() and not resume:
        raise ConfigError(
            f"{journal} has answers of an earlier attack; add --resume to use them, or give"
            " another --out"
        )
    if not quiet:
        _say_plans(plans, settings.query_cost)
    with ExitStack() as stack:
        source = open_source(name, wrappers, settings, stack)
        data = source.data
        plans = [replace(plan, target=class_number(target, data.classes)) for plan in plans]
        if png:
            check_pictures(data.images, plans[0].settings.levels)
        bar = stack.enter_context(
            Progress(console=stderr, disable=quiet or not stderr.is_terminal, transient=True)
        )
        shown = public_name(name)
        total = sum(1 if plan.settings.universal else plan.num_images for plan in plans)
        task = bar.add_task(markup(f"attack {shown}"), total=total)
        reports = attack_by_plans(
            source.victim,
            data.images,
            data.labels,
            plans,
            journal=journal,
            name=" ".join([shown, *wrappers]),
            progress=lambda over, queries: bar.update(
                task, completed=over, description=markup(f"attack {shown}, {queries:,} queries")
            ),
        )
    return [
        replace(report, query_cost=settings.query_cost, classes=data.classes, files=data.files)
        for report in reports
    ]


def _say_plans(plans: Sequence[Plan], query_cost: float) -> None:
    """Say what attacks may cost before they begin."""
    most = sum(plan.most_queries for plan in plans)
    cost = f" (cost {query_cost * most:,.2f})" if query_cost else ""
    count = "1 attack" if len(plans) == 1 else f"{len(plans)} attacks"
    say(
        stderr,
        f"{count} on up to {plans[0].num_images} images: at most {most:,} queries{cost}, besides"
        " screening",
    )


def _radii(norm: str, text: str | None) -> list[float]:
    if text is None:
        return [_RADIUS[norm]]
    return [read_number(part, name="radius") for part in text.split(",")]


def _coordinates(text: str) -> Coordinates:
    name, colon, count = text.partition(":")
    if name not in COORDINATES:
        raise unknown_key(name, COORDINATES, what="coordinates")
    if colon and not count.isdigit():
        raise ConfigError(f"--coordinates {text}: write a whole number after the colon")
    try:
        return Coordinates(name, int(count)) if count else Coordinates(name)
    except ConfigError as error:
        raise ConfigError(f"--coordinates {text}: {error}") from error


def _one_of(value: str, allowed: tuple[str, ...], what: str) -> str:
    if value not in allowed:
        raise unknown_key(value, allowed, what=what)
    return value

"""What `fedzo attack` does with its words."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.names import COORDINATES, NORMS
from fedzo.attacks.region import read_radius
from fedzo.config import build_config, unknown_key
from fedzo.errors import ConfigError
from fedzo.objectives.addresses import public_name
from fedzo.records.lock import locked
from fedzo.records.storage import sha256_of, storing
from fedzo.records.terminal import markup, say, say_place
from scenarios.attacks.attack_table import AttackTable
from scenarios.attacks.picture_files import PNG_LEVELS, check_pictures
from scenarios.attacks.plan import table_of
from scenarios.attacks.single_attack import Plan, Report, attack_by_plans, rehearse_plans
from scenarios.attacks.table_report import print_result, write_result
from scenarios.cli.dry import NOTHING
from scenarios.cli.options import by_section, stderr
from scenarios.runs.extension import require_no_run
from scenarios.victims.attack_data import class_number
from scenarios.victims.names import network_of, of_photographs
from scenarios.victims.victim_sources import Source, SourceSettings, check_seed, open_source

_JOURNAL = "answers.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What was typed: see `fedzo attack --help`; quiet: no progress and no table."""

    victim: str
    attacker: str | None
    norm: str
    radius: str | None
    query_budget: int
    images: int
    seed: int
    target: str | None
    loss: str
    universal: bool
    placements: int
    coordinates: str
    levels: int | None
    confirm: int
    expect: int
    blind: float
    confidence: float
    wrap: list[str]
    settings: list[str]
    out: Path | None
    png: bool
    resume: bool
    dry_run: bool
    quiet: bool


def attack(words: Words) -> dict[str, Any]:
    """Attack, write and print; returns the summary."""
    attackers = [name.strip() for name in (words.attacker or "").split(",")]
    if len(attackers) > 1 and not all(attackers):
        raise ConfigError(f"--attacker {words.attacker} has an empty name; leave out a comma")
    radii = _radii(words)
    several = len(attackers) > 1 or len(radii) > 1
    own = filter(None, attackers if several else ())
    parts = by_section(words.settings, ("attacker", "victim", *own))
    check_seed(parts["victim"], words.wrap)
    shown = public_name(words.victim)
    plan = Plan(
        num_images=words.images,
        attacker=attackers[0],
        attacker_settings=parts["attacker"],
        settings=build_config(
            AttackSettings,
            {
                "norm": words.norm,
                "radius": radii[0],
                "query_budget": words.query_budget,
                "seed": words.seed,
                "loss": words.loss,
                "universal": words.universal,
                "placements": words.placements,
                "levels": _levels(words),
                "confirm": words.confirm,
                "expect": words.expect,
                "blind": words.blind,
                "confidence": words.confidence,
                "coordinates": _coordinates(words.coordinates),  # type: ignore[dict-item]
            },
            section="attack",
        ),
    )
    plans = table_of(plan, attackers, radii, parts) if several else [plan]
    source = build_config(SourceSettings, {"seed": words.seed, **parts["victim"]}, section="victim")
    if words.png and not words.out:
        raise ConfigError("--png needs a directory for the files: add --out")
    if words.dry_run:
        return _rehearsed(words, source, plans)
    place = words.out and words.out.absolute()  # the victim's code may change where it works
    with locked(place):
        require_no_run(words.out)
        reports = _run(replace(words, out=place), source, plans)
        found = AttackTable(reports) if several else reports[0]
        if place:
            with storing(place):
                write_result(place, shown, found, pictures=words.png)
    if not words.quiet:
        print_result(Console(), shown, found)
        if words.out:
            say_place(stderr, "figure", words.out / "figure.png")
            if place and (place / "distance.png").exists():
                say_place(stderr, "distance", words.out / "distance.png")
    return {"victim": shown, **found.summary(), "out": str(words.out) if words.out else None}


_RADIUS = {"linf": 0.1, "l2": 1.5, "l0": 40.0, "patch": 8.0}
_RADIUS_OF_PHOTOGRAPHS = {"linf": 4 / 255, "l2": 2.0, "l0": 400.0, "patch": 32.0}


def _run(words: Words, settings: SourceSettings, plans: Sequence[Plan]) -> list[Report]:
    """Open the victim and attack it, with progress on a terminal."""
    journal = words.out / _JOURNAL if words.out else None
    kept = sorted(words.out.glob("answers*.jsonl")) if words.out else []  # one, or one an attack
    if words.resume and not (kept if len(plans) > 1 else [k for k in kept if k == journal]):
        raise ConfigError(f"--resume needs --out with {_JOURNAL} of an earlier attack in it")
    if kept and not words.resume:
        raise ConfigError(
            f"{kept[0]} has answers of an earlier attack; add --resume to use them, or give"
            " another --out"
        )
    if not words.quiet:
        _say_plans(plans, settings.query_cost)
    owner = _owner(words, settings)
    with ExitStack() as stack:
        source, plans = _opened(words, settings, plans, stack)
        data = source.data
        bar = stack.enter_context(
            Progress(console=stderr, disable=words.quiet or not stderr.is_terminal, transient=True)
        )
        shown = public_name(words.victim)
        total = sum(1 if plan.settings.universal else plan.num_images for plan in plans)
        task = bar.add_task(markup(f"attack {shown}"), total=total)
        reports = attack_by_plans(
            source.victim,
            data.images,
            data.labels,
            plans,
            journal=journal,
            name=owner,
            progress=lambda over, queries: bar.update(
                task, completed=over, description=markup(f"attack {shown}, {queries:,} queries")
            ),
        )
    return [
        replace(report, query_cost=settings.query_cost, classes=data.classes, files=data.files)
        for report in reports
    ]


def _owner(words: Words, settings: SourceSettings) -> str:
    """Return whose answers a journal holds: the victim, what its file says, how it is read."""
    parts = [public_name(words.victim), *words.wrap]
    where = words.victim if Path(words.victim).is_file() else words.victim.rpartition(":")[0]
    if where and Path(where).is_file():
        parts.append(f"of sha256 {sha256_of(Path(where))[:12]}")
    if settings.classes and Path(settings.classes).is_file():
        parts.append(f"classes of sha256 {sha256_of(Path(settings.classes))[:12]}")
    usual = SourceSettings()
    read_by = ("output", "layout", "tells", *(["seed"] if words.wrap else []))
    told = {name: getattr(settings, name) for name in read_by}
    return " ".join([*parts, *(f"{n}={v}" for n, v in told.items() if v != getattr(usual, n))])


def _opened(
    words: Words, settings: SourceSettings, plans: Sequence[Plan], stack: ExitStack
) -> tuple[Source, list[Plan]]:
    """Return the victim with its data, and plans that know the target's number."""
    source = open_source(words.victim, words.wrap, settings, stack)
    if not settings.data and not network_of(words.victim)[0]:
        say(stderr, "the images are test digits of MNIST; set victim.data to attack it with others")
    target = class_number(words.target, source.data.classes)
    if words.png:
        check_pictures(source.data.images, plans[0].settings.levels)
    return source, [replace(plan, target=target) for plan in plans]


def _rehearsed(words: Words, settings: SourceSettings, plans: Sequence[Plan]) -> dict[str, Any]:
    """Check everything without asking the victim, and say what would be done."""
    with ExitStack() as stack:
        source, plans = _opened(words, settings, plans, stack)
        images = source.data.images
        names = rehearse_plans(source.victim, images, plans)
    attacks = [
        {"attacker": name, "norm": plan.settings.norm, "radius": plan.settings.radius,
         "most_queries": plan.most_queries}
        for name, plan in zip(names, plans, strict=True)
    ]  # fmt: skip
    shown = public_name(words.victim)
    if not words.quiet:
        tells = f"{shown} tells {source.victim.tells} of images {list(images.shape[1:])}"
        say(stderr, f"{tells}; {len(images):,} images are at hand")
        for one in attacks:
            told = f"{one['attacker']}, {one['norm']} {one['radius']:g}"
            say(stderr, f"{told}: at most {one['most_queries']:,} queries")
        _say_plans(plans, settings.query_cost)
        say(stderr, NOTHING)
    return {"dry_run": True, "victim": shown, "attacks": attacks}


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


def _radii(words: Words) -> list[float]:
    norm = _one_of(words.norm, NORMS, "norm")
    if words.radius is None:
        usual = _RADIUS_OF_PHOTOGRAPHS if of_photographs(words.victim) else _RADIUS
        return [usual[norm]]
    return [read_radius(part, norm) for part in words.radius.split(",")]


def _levels(words: Words) -> int:
    """Return the steps of a pixel's value: those of a file for photographs, and where one is."""
    if words.levels is not None:
        return words.levels
    return PNG_LEVELS if words.png or of_photographs(words.victim) else 0


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

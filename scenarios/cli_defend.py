"""`fedzo defend`: train a defense of a victim through its answers alone, and certify it."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fedzo.attacks.victim import Victim
from fedzo.config import build_config, parse_setting
from fedzo.errors import ConfigError
from fedzo.plots import save_figure
from fedzo.randomness import stream
from fedzo.smoothing import Certificate, Smoothing, certified_accuracy
from scenarios.cli_options import JsonOption, finish, guard, prepare, stderr
from scenarios.data import Images
from scenarios.defense import (
    DefenseConfig,
    SmoothedVictim,
    certify_images,
    save_defense,
    train_defense,
)
from scenarios.shipped import SHIPPED, shipped_network, shipped_victim

RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


def defend_command(
    victim: Annotated[
        str, typer.Argument(help="mnist, fashion, or either behind ONNX or HTTP: mnist-onnx, ...")
    ],
    sigma: Annotated[
        float, typer.Option(help="of the noise that it is smoothed with, pixels in [0, 1]")
    ] = 1.0,
    steps: Annotated[
        int, typer.Option(help="of zeroth-order training; 0 trains on images alone")
    ] = 300,
    certify: Annotated[int, typer.Option(help="test images that are certified")] = 50,
    samples: Annotated[int, typer.Option(help="noisy copies for a certificate")] = 1000,
    seed: Annotated[int, typer.Option(help="determines everything random")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="a setting of the training, such as defense.estimator=forward, defense.latent=16,"
            " defense.lr=0.001; may be repeated",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="directory for the defense and a figure")] = None,
    json_output: JsonOption = False,
) -> None:
    """Defend a model that can only be queried: ZO-AE-DS (Zhang et al. 2022).

    A denoiser and an encoder are trained through the model's scores by zeroth-order gradients, and
    certified beside the undefended smoothed model (Cohen et al. 2019).
    Attack it then with: fedzo attack mnist --wrap defense=DIRECTORY
    Example: fedzo defend mnist --steps 100 --out runs/defense
    """
    prepare(1)

    def work() -> dict[str, Any]:
        parsed = dict(parse_setting(text) for text in settings or [])
        wrong = [key for key in parsed if not key.startswith("defense.")]
        if wrong:
            raise ConfigError(f"--set {wrong[0]}: settings of `fedzo defend` begin with defense.")
        given = {key.removeprefix("defense."): value for key, value in parsed.items()}
        config = build_config(
            DefenseConfig,
            {"sigma": sigma, "steps": steps, "seed": seed, **given},
            section="defense",
        )
        smoothing = Smoothing(sigma=config.sigma, count=samples)
        summary = _defend(victim, config, smoothing, certify, out, quiet=json_output)
        if not json_output:
            _print(Console(), summary)
        return summary

    finish(guard(work), json_output)


def _defend(
    name: str,
    config: DefenseConfig,
    smoothing: Smoothing,
    count: int,
    out: Path | None,
    *,
    quiet: bool,
) -> dict[str, Any]:
    base, _, kind = name.partition("-")
    if base not in SHIPPED or kind not in ("", "onnx", "http"):
        raise ConfigError(f"victim {name!r} is none of {', '.join(SHIPPED)}, -onnx, -http")
    begun = time.perf_counter()
    shipped = shipped_network(base)
    with ExitStack() as stack:
        victim = shipped_victim(shipped.module, kind, shipped.test.pixels.shape[-1], stack)
        bar = stack.enter_context(
            Progress(console=stderr, disable=quiet or not stderr.is_terminal, transient=True)
        )
        task = bar.add_task("train", total=1)
        defense = train_defense(
            victim,
            shipped.train,
            config,
            progress=lambda stage, done, of: bar.update(
                task, description=f"train through the {stage}", completed=done, total=of
            ),
        )
        if out:
            save_defense(out, defense, shipped.test.pixels.shape[-1])
        certifying = _Certifying(victim, shipped.test.take(_first(count, shipped.test)), smoothing)
        curves = {
            label: certifying.accuracies(purifier, config.seed, bar, label)
            for label, purifier in (("undefended", None), ("defended", defense.purifier))
        }
    if out:
        _draw(out / "figure.png", curves, name, config)
    return {
        "victim": name,
        "sigma": config.sigma,
        "steps": config.steps,
        "estimator": config.estimator,
        "training_queries": defense.queries,
        "images": count,
        "samples": smoothing.count,
        "largest_radius": smoothing.largest_radius,
        **{
            f"certified_{label}": dict(zip(map(str, RADII), values, strict=True))
            for label, values in curves.items()
        },
        "seed": config.seed,
        "wall_s": time.perf_counter() - begun,
        "out": str(out) if out else None,
    }


def _first(count: int, images: Images) -> Any:
    if not 1 <= count <= len(images):
        raise ConfigError(f"certify={count} must be from 1 to {len(images)}, the test images")
    return list(range(count))


@dataclass(frozen=True, slots=True)
class _Certifying:
    """What is certified, and how."""

    victim: Victim
    images: Images
    smoothing: Smoothing

    def accuracies(self, purifier: Any, seed: int, bar: Progress, label: str) -> list[float]:
        """Return the certified accuracy at each of RADII."""
        task = bar.add_task(f"certify {label}", total=len(self.images))
        smoothed = SmoothedVictim(
            self.victim, purifier, self.smoothing.sigma, generator=stream(seed, "smoothed")
        )
        certificates: list[Certificate] = certify_images(
            smoothed,
            self.images.pixels.unsqueeze(1),
            self.smoothing,
            seed=seed,
            progress=lambda done: bar.update(task, completed=done),
        )
        return [certified_accuracy(certificates, self.images.labels, r) for r in RADII]


def _print(console: Console, summary: dict[str, Any]) -> None:
    title = f"certified accuracy of {summary['victim']}, sigma {summary['sigma']:g}"
    table = Table("l2 radius", *map(str, RADII), title=title, title_justify="left")
    for label in ("undefended", "defended"):
        values = summary[f"certified_{label}"].values()
        table.add_row(label, *(f"{value:.2f}" for value in values))
    console.print(table)
    console.print(
        f"{summary['images']} test images, {summary['samples']:,} copies each;"
        f" {summary['training_queries']:,} training queries; {summary['wall_s']:.0f} s",
        highlight=False,
    )
    if summary["out"]:
        console.print(f"defense: {summary['out']}", highlight=False, soft_wrap=True)


def _draw(path: Path, curves: dict[str, list[float]], name: str, config: DefenseConfig) -> None:
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, values in curves.items():
        axes.plot(RADII, values, marker="o", label=label)
    axes.set_xlabel("l2 radius")
    axes.set_ylabel("certified accuracy")
    axes.set_title(f"{name}, sigma {config.sigma:g}", fontsize="small")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)

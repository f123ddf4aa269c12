"""What `fedzo defend` does with its words."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from fedzo.attacks.victims.victim import Victim
from fedzo.config import Scalar, build_config, default_values, require
from fedzo.errors import ConfigError
from fedzo.estimation.smoothing import Certificate, Smoothing, certified_accuracy
from fedzo.randomness import stream
from fedzo.records.checkpoint import has_checkpoint
from fedzo.records.figure_text import figure_text
from fedzo.records.lock import locked
from fedzo.records.plots import save_figure
from fedzo.records.storage import storing
from fedzo.records.terminal import say_place, title
from fedzo.used_with import require_effective
from scenarios.cli.options import by_section, stderr
from scenarios.data.image_folder import LabelledImages
from scenarios.data.images import Images
from scenarios.runs.extension import require_no_run
from scenarios.victims.defense import (
    DefenseConfig,
    save_defense,
    train_defense,
)
from scenarios.victims.shipped import SHIPPED, shipped_network
from scenarios.victims.smoothed import SmoothedVictim, certify_images
from scenarios.victims.victim_sources import Source, SourceSettings, check_seed, open_source

RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


def defend(
    victim: str,
    options: Mapping[str, float | None],
    settings: list[str],
    certify: int,
    samples: int,
    out: Path | None,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Train, certify, write and print; returns the summary. See `fedzo defend --help`."""
    parts = by_section(settings, ("defense", "victim"))
    config = _config(options, parts["defense"])
    source = build_config(SourceSettings, parts["victim"], section="victim")
    check_seed(parts["victim"], [])
    if source.query_cost:
        raise ConfigError(
            f"victim.query_cost={source.query_cost} has no effect on a defense, which reports"
            " queries alone; leave it out"
        )
    if source.classes and not Path(source.data).is_dir():
        raise ConfigError(
            f"victim.classes={source.classes} has no effect on a defense, which names no"
            " classes; leave it out"
        )
    require(samples >= 1, "--samples", samples, "at least 1")
    smoothing = Smoothing(sigma=config.sigma, count=samples)
    with ExitStack() as stack:
        opened = open_source(victim, [], source, stack)
        shipped = victim.partition("-")[0] if not source.data else ""
        apart = shipped_network(shipped).train if shipped in SHIPPED else None
        train, test = _split(opened, apart, certify, config)
        job = _Job(victim, opened.victim, train, test, config, smoothing)
        stack.enter_context(locked(out))
        require_no_run(out)
        if out and has_checkpoint(out):
            raise ConfigError(f"--out {out} holds a defense already; name another directory")
        summary = job.run(out, quiet=quiet)
    if not quiet:
        _print(Console(), summary)
    return summary


def _config(options: Mapping[str, float | None], settings: Mapping[str, Scalar]) -> DefenseConfig:
    """Return the settings of the training; raises ConfigError for one given twice or in vain."""
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() & settings.keys():
        raise ConfigError(
            f"--{name} {given[name]} and --set defense.{name}={settings[name]} are one setting;"
            " leave one of them out"
        )
    made = build_config(DefenseConfig, {"sigma": 1.0, **given, **settings}, section="defense")
    require_effective(made, default_values(DefenseConfig), section="defense", beside={})
    return made


def _split(
    source: Source, apart: Images | None, count: int, config: DefenseConfig
) -> tuple[Float[Tensor, "n c h w"], LabelledImages]:
    """Return what is trained on, and the `count` images that are certified.

    apart: images for the training alone, where there are such.
    """
    data = source.data
    shape = tuple(data.images.shape[1:])
    if shape[1] % 4 or shape[2] % 4:
        raise ConfigError(
            f"images have shape {shape}; a defense is for images whose height and width divide by"
            f" 4; {'set victim.size' if data.files else 'cut or scale them'}"
        )
    most = len(data.images) if apart else len(data.images) - config.batch_size
    if most < 1:
        raise ConfigError(
            f"{len(data.images)} images are too few: a batch of the training takes"
            f" {config.batch_size}, and others are certified; give more, or set defense.batch_size"
        )
    if not 1 <= count <= most:
        raise ConfigError(
            f"certify={count} must be from 1 to {most}, of {len(data.images)} images"
            + ("" if apart else f" with a batch of {config.batch_size} left for the training")
        )
    order = torch.arange(len(data.images))
    if data.files:  # which lie class by class
        order = torch.from_numpy(stream(config.seed, "defense", "order").permutation(len(order)))
    chosen = order[:count]
    test = replace(data, images=data.images[chosen], labels=data.labels[chosen])
    train = apart.pixels.unsqueeze(1) if apart else data.images[order[count:]]
    return train, test


@dataclass(frozen=True, slots=True)
class _Job:
    """What is defended, and how."""

    name: str
    victim: Victim
    train: Float[Tensor, "n c h w"]
    test: LabelledImages
    config: DefenseConfig
    smoothing: Smoothing

    def run(self, out: Path | None, *, quiet: bool) -> dict[str, Any]:
        """Train, save, certify and draw; returns the summary."""
        begun = time.perf_counter()
        disable = quiet or not stderr.is_terminal
        with Progress(console=stderr, disable=disable, transient=True) as bar:
            task = bar.add_task("train", total=1)
            defense = train_defense(
                self.victim,
                self.train,
                self.config,
                progress=lambda stage, done, of: bar.update(
                    task, description=f"train through the {stage}", completed=done, total=of
                ),
            )
            if out:
                save_defense(out, defense)
            curves = {
                label: self._accuracies(purifier, bar, label)
                for label, purifier in (("undefended", None), ("defended", defense.purifier))
            }
        if out:
            with storing(out):
                _draw(out / "figure.png", curves, self.name, self.config)
        return {
            "victim": self.name,
            "sigma": self.config.sigma,
            "steps": self.config.steps,
            "estimator": self.config.estimator,
            "training_queries": defense.queries,
            "images": len(self.test.labels),
            "samples": self.smoothing.count,
            "largest_radius": self.smoothing.largest_radius,
            **{
                f"certified_{label}": dict(zip(map(str, RADII), values, strict=True))
                for label, values in curves.items()
            },
            "seed": self.config.seed,
            "wall_s": time.perf_counter() - begun,
            "out": str(out) if out else None,
        }

    def _accuracies(self, purifier: Any, bar: Progress, label: str) -> list[float]:
        """Return the certified accuracy at each of RADII."""
        seed = self.config.seed
        task = bar.add_task(f"certify {label}", total=len(self.test.labels))
        generator = stream(seed, "smoothed")
        certificates: list[Certificate] = certify_images(
            SmoothedVictim(self.victim, purifier, self.smoothing.sigma, generator=generator),
            self.test.images,
            self.smoothing,
            seed=seed,
            progress=lambda done: bar.update(task, completed=done),
        )
        return [certified_accuracy(certificates, self.test.labels, r) for r in RADII]


def _print(console: Console, summary: dict[str, Any]) -> None:
    name = title(f"certified accuracy of {summary['victim']}, sigma {summary['sigma']:g}")
    table = Table("l2 radius", *map(str, RADII), title=name, title_justify="left")
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
        say_place(console, "defense", summary["out"])


def _draw(path: Path, curves: dict[str, list[float]], name: str, config: DefenseConfig) -> None:
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, values in curves.items():
        axes.plot(RADII, values, marker="o", label=label)
    axes.set_xlabel("l2 radius")
    axes.set_ylabel("certified accuracy")
    axes.set_title(figure_text(f"{name}, sigma {config.sigma:g}"), fontsize="small")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)

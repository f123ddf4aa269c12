"""Attacks on one victim, ours and other libraries', counted by one meter: docs/results/attacks.md.

    python benchmarks/attacks.py OUT [--only NAME ...] [--peers FOLDER]

Fashion-MNIST linf 0.1, MNIST linf 0.2, Fashion-MNIST l2 1.5; the shipped networks; 50 test images
that they get right, 1,000 queries an image, seeds 0 to 2. A query is one image row that the victim
has answered; success is the first row that is answered wrongly inside the ball; a failure counts as
1,000. Every attack gets the same tuning effort: four settings on 20 other images with seed 100, of
which the one with the fewest mean queries is kept. Runs that lie in OUT are not run again.

The other libraries are looked for in FOLDER (`pip install --no-deps --target FOLDER torchattacks
foolbox eagerpy GitPython gitdb smmap tqdm six adversarial-robustness-toolbox`: torchattacks would
pull a CUDA torch); those that are not there are left out. Each image is given to them alone, as
their interfaces have it; ours are given all images at once.
"""

import argparse
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedzo.attacks.attack import AttackSettings, attack
from fedzo.attacks.coordinates import Coordinates
from fedzo.attacks.goal import LossName
from fedzo.attacks.region import Region, region_around
from fedzo.attacks.victims.victim import ModuleVictim, Victim
from fedzo.attacks.victims.wrappers import LabelOnly, Meter
from scenarios.attacks.attackers import make_attacker
from scenarios.victims.shipped import shipped_network

BUDGET, IMAGES, TUNING_IMAGES, SEEDS, TUNING_SEED = 1000, 50, 20, (0, 1, 2), 100
SETTINGS = {
    "fashion linf 0.1": ("fashion", "linf", 0.1),
    "mnist linf 0.2": ("mnist", "linf", 0.2),
    "fashion l2 1.5": ("fashion", "l2", 1.5),
}
WAVES = "coordinates"
OURS: dict[str, tuple[str, str, dict[str, tuple[Any, ...]]]] = {
    "thompson": ("thompson", "scores", {"lengthscale": (2.0, 3.0), "spread": (0.3, 0.6)}),
    "square": ("square", "scores", {"area": (0.2, 0.4, 0.6, 0.8)}),
    "nes, waves": ("nes", "scores", {WAVES: (7, 10), "num_directions": (5, 10)}),
    "nes": ("nes", "scores", {"lr": (0.1, 0.3), "num_directions": (10, 25)}),
    "simba": ("simba", "scores", {WAVES: (0, 7, 14, 28)}),
    "fzoos": ("fzoos", "scores", {"lengthscale": (1.5, 2.5), "num_directions": (5, 10)}),
    "fzoos, waves": ("fzoos", "scores", {WAVES: (7, 10), "num_directions": (5, 10)}),
    "rank, waves": ("rank", "scores", {WAVES: (7, 10), "num_directions": (10, 20)}),
    "edge": ("edge", "labels", {"handover": (0.1, 0.3), "waves": (7, 10)}),
    "thompson, boundary": (
        "thompson",
        "labels",
        {"lengthscale": (2.0, 3.0), "spread": (0.3, 0.6)},
    ),
    "hopskipjump, waves": ("hopskipjump", "labels", {WAVES: (7, 10), "first_directions": (15, 30)}),
    "hopskipjump": (
        "hopskipjump",
        "labels",
        {"smoothing": (0.3, 0.9), "first_directions": (30, 60)},
    ),
}
PEERS: dict[str, tuple[str, dict[str, tuple[Any, ...]]]] = {
    "torchattacks Square": ("scores", {"p_init": (0.3, 0.5, 0.8, 0.95)}),
    "ART Square": ("scores", {"p_init": (0.1, 0.3, 0.5, 0.8)}),
    "ART SimBA": ("scores", {"attack": ("px", "dct"), "epsilon": (0.1, 0.2)}),
    "ART HopSkipJump": ("labels", {"init_eval": (15, 50), "max_eval": (100, 400)}),
    "foolbox HopSkipJump": ("labels", {"initial": (15, 50), "most": (100, 400)}),
}


@dataclass
class Result:
    """Success and counted queries of every image."""

    success: list[bool]
    queries: list[int]
    seconds: float

    def line(self) -> tuple[float, float, float]:
        """Return success rate, mean and median queries."""
        return (
            float(np.mean(self.success)),
            float(np.mean(self.queries)),
            float(np.median(self.queries)),
        )


class Over(Exception):
    """The attack has succeeded, or has spent its budget."""


class Metered(nn.Module):
    """A network that counts rows, and ends the attack on one image when it is over.

    levels: what is asked is first moved to whole steps of 1/levels inside the ball, as ours is; a
    pixel that is no number (ART's Square in L2 makes some) stays what it was.
    """

    def __init__(
        self,
        module: nn.Module,
        image: Tensor,
        label: int,
        region: Region,
        *,
        budget: int = BUDGET,
        classes: int = 10,
        levels: int = 0,
    ):
        super().__init__()
        self.module, self.image, self.label, self.region = module, image, label, region
        self.budget, self.classes, self.levels = budget, classes, levels
        self.count, self.hit = 0, False

    def forward(self, x: Tensor) -> Tensor:
        change = (x.float() - self.image).flatten(1)
        if self.levels:
            change = self.region.on_steps(change.nan_to_num(0.0), self.levels)
            x = (self.image + change.view_as(x)).clamp(0, 1)
        with torch.no_grad():
            scores: Tensor = self.module(x.float())
        size = change.abs().amax(1) if self.region.norm == "linf" else change.norm(dim=1)
        inside = size <= self.region.radius * (1 + 1e-5) + 1e-6
        hits = (scores.argmax(1) != self.label) & inside
        for hit in hits.tolist():
            self.count += 1
            if hit or self.count >= self.budget:
                self.hit = hit
                raise Over
        return scores


def run_ours(name: str, setting: str, chosen: Mapping[str, Any], tuning: bool, seed: int) -> Result:
    """Run an attacker of fedzo on all images at once."""
    attacker, sees, _ = OURS[name]
    module, images, labels = subjects(setting, tuning)
    victim: Victim = ModuleVictim(module)
    victim = LabelOnly(victim) if sees == "labels" else victim
    meter = Meter(victim)
    chosen = dict(chosen)
    waves = chosen.pop(WAVES, 0)
    coordinates = Coordinates("waves", waves) if waves else Coordinates()
    _, norm, radius = SETTINGS[setting]
    loss: LossName = "boundary" if name.endswith("boundary") else "margin"
    settings = AttackSettings(
        norm=norm, radius=radius, query_budget=BUDGET, seed=seed, loss=loss, coordinates=coordinates
    )
    made = make_attacker(attacker, victim.tells, chosen, loss=loss)
    begun = time.perf_counter()
    found = attack(meter, images, labels, made, settings)
    assert meter.queries == sum(one.queries for one in found)
    return Result(
        [one.success for one in found],
        [one.queries if one.success else BUDGET for one in found],
        time.perf_counter() - begun,
    )


def run_peer(name: str, setting: str, chosen: Mapping[str, Any], tuning: bool, seed: int) -> Result:
    """Run another library's attack on one image after the other."""
    module, images, labels = subjects(setting, tuning)
    _, norm, radius = SETTINGS[setting]
    meters = [
        Metered(module, image, label, region_around(image.unsqueeze(0), norm, radius))
        for image, label in zip(images, labels.tolist(), strict=True)
    ]
    return attacked(name, meters, chosen, seed)


def attacked(name: str, meters: Sequence[Metered], chosen: Mapping[str, Any], seed: int) -> Result:
    """Run another library's attack on the image of each meter, until it says that it is over."""
    begun = time.perf_counter()
    for i, meter in enumerate(meters):
        torch.manual_seed(1000 * seed + i)
        np.random.seed(1000 * seed + i)  # noqa: NPY002  (the others draw from it)
        with contextlib.suppress(Over):
            PEER_RUNS[name](meter, chosen, 1000 * seed + i)
    queries = [meter.count if meter.hit else meter.budget for meter in meters]
    return Result([meter.hit for meter in meters], queries, time.perf_counter() - begun)


def torchattacks_square(meter: Metered, chosen: Any, seed: int) -> None:
    import torchattacks

    attack = torchattacks.Square(
        meter,
        norm="Linf" if meter.region.norm == "linf" else "L2",
        eps=meter.region.radius,
        n_queries=meter.budget,
        n_restarts=1,
        seed=seed,
        **chosen,
    )
    attack(meter.image.unsqueeze(0), torch.tensor([meter.label]))


def _art(meter: Metered) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        nn.Sequential(meter, nn.Softmax(1)),
        nn.CrossEntropyLoss(),
        tuple(meter.image.shape),
        meter.classes,
        clip_values=(0, 1),
        device_type="cpu",
    )


def art_square(meter: Metered, chosen: Any, seed: int) -> None:
    from art.attacks.evasion import SquareAttack

    attack = SquareAttack(
        _art(meter),
        norm=np.inf if meter.region.norm == "linf" else 2,
        eps=meter.region.radius,
        max_iter=meter.budget,
        nb_restarts=1,
        verbose=False,
        **chosen,
    )
    attack.generate(meter.image.unsqueeze(0).numpy(), y=np.array([meter.label]))


def art_simba(meter: Metered, chosen: Any, seed: int) -> None:
    from art.attacks.evasion import SimBA

    step = chosen["epsilon"] if meter.region.norm == "l2" else meter.region.radius
    kind = chosen["attack"]
    size = {"freq_dim": 7, "stride": 7} if kind == "dct" else {}
    SimBA(
        _art(meter), attack=kind, max_iter=meter.budget, epsilon=step, verbose=False, **size
    ).generate(
        meter.image.unsqueeze(0).numpy(), y=np.eye(meter.classes, dtype=np.float32)[[meter.label]]
    )


def art_hopskipjump(meter: Metered, chosen: Any, seed: int) -> None:
    from art.attacks.evasion import HopSkipJump

    attack = HopSkipJump(
        _art(meter),
        norm=np.inf if meter.region.norm == "linf" else 2,
        max_iter=64,
        verbose=False,
        **chosen,
    )
    attack.generate(meter.image.unsqueeze(0).numpy(), y=np.array([meter.label]))


def foolbox_hopskipjump(meter: Metered, chosen: Any, seed: int) -> None:
    import foolbox

    model = foolbox.PyTorchModel(meter.eval(), bounds=(0, 1))
    attack = foolbox.attacks.HopSkipJumpAttack(
        steps=64,
        initial_gradient_eval_steps=chosen["initial"],
        max_gradient_eval_steps=chosen["most"],
        constraint=meter.region.norm,
    )
    wrong = foolbox.criteria.Misclassification(torch.tensor([meter.label]))
    attack.run(model, meter.image.unsqueeze(0), wrong)


PEER_RUNS: dict[str, Callable[..., None]] = {
    "torchattacks Square": torchattacks_square,
    "ART Square": art_square,
    "ART SimBA": art_simba,
    "ART HopSkipJump": art_hopskipjump,
    "foolbox HopSkipJump": foolbox_hopskipjump,
}
MODULES = {"torchattacks": "torchattacks", "ART": "art", "foolbox": "foolbox"}


def subjects(setting: str, tuning: bool) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network and the images that it gets right; the tuning's come after the test's."""
    shipped = shipped_network(SETTINGS[setting][0])
    images, labels = shipped.test.pixels[:500].unsqueeze(1), shipped.test.labels[:500]
    with torch.no_grad():
        right = (shipped.module(images).argmax(1) == labels).nonzero().flatten()
    rows = right[IMAGES : IMAGES + TUNING_IMAGES] if tuning else right[:IMAGES]
    return shipped.module, images[rows], labels[rows]


def kept(path: Path, work: Callable[[], Result]) -> Result:
    """Return a run that lies in a file, or make it."""
    if path.exists():
        return Result(**json.loads(path.read_text()))
    result = work()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result.__dict__))
    return result


def measure(out: Path, name: str, setting: str) -> dict[str, Any]:
    """Tune an attack, run it with every seed, and return its row."""
    ours = name in OURS
    run = run_ours if ours else run_peer
    sees, grid = OURS[name][1:] if ours else PEERS[name]
    folder = out / setting.replace(" ", "-") / name.replace(" ", "-").replace(",", "")
    trials = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        path = folder / f"tuning-{'-'.join(map(str, values))}.json"
        result = kept(path, lambda c=chosen: run(name, setting, c, True, TUNING_SEED))
        trials.append((result.line()[1], chosen))
    best = min(trials, key=lambda trial: trial[0])[1]
    marks = "-".join(map(str, best.values()))
    results = [
        kept(
            folder / f"seed-{seed}-{marks}.json", lambda s=seed: run(name, setting, best, False, s)
        )
        for seed in SEEDS
    ]
    lines = np.array([result.line() for result in results])
    mean, error = lines.mean(0), lines.std(0, ddof=1) / len(lines) ** 0.5
    return {
        "attack": name,
        "sees": sees,
        "success": mean[0],
        "success_error": error[0],
        "mean": mean[1],
        "mean_error": error[1],
        "median": mean[2],
        "seconds": float(np.median([result.seconds for result in results])),
        "chosen": best,
    }


def table(setting: str, rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [
        f"## {setting}",
        "",
        "| attack | sees | success | mean queries | median | s for 50 images | tuned |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: (row["sees"] != "scores", row["mean"])):
        tuned = ", ".join(f"{key} {value}" for key, value in row["chosen"].items())
        lines.append(
            f"| {row['attack']} | {row['sees']} | {row['success']:.2f} ± {row['success_error']:.2f}"
            f" | {row['mean']:.0f} ± {row['mean_error']:.0f} | {row['median']:.0f}"
            f" | {row['seconds']:.1f} | {tuned} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure what is asked for and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=[*OURS, *PEERS])
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peers:
        sys.path.append(str(options.peers))
    names = []
    for name in options.only:
        module = MODULES.get(name.split()[0])
        try:
            if module and name in PEERS:
                __import__(module)
            names.append(name)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    for setting in SETTINGS:
        rows = []
        for name in names:
            rows.append(measure(options.out, name, setting))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        print(table(setting, rows), flush=True)


if __name__ == "__main__":
    main()

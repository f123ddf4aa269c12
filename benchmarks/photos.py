"""Attacks on a pretrained network of photographs: EfficientNet-Lite0 at 224 x 224 x 3.

    python benchmarks/photos.py OUT [ATTACKER ...]          # hours on one core; needs fedzo[vision]
    python benchmarks/photos.py OUT --targeted [ATTACKER ...]
    python benchmarks/photos.py OUT --others --peers FOLDER [ATTACKER ...]
    python benchmarks/photos.py OUT --labels [--peers FOLDER] [ATTACKER ...]
    python benchmarks/photos.py OUT --table

By scores: all 27 photographs, whole steps of 1/255, 2,000 queries an image, seeds 0, 1, 2; a
failure counts as 2,000. Targeted: the same with a random class for each image, seed 0, and
Linf 8/255. Others: torchattacks' and ART's Square attack by scores, tuned like ours (`p_init`
on nine images, seed 100, linf at 2/255), asked at whole steps; they are looked for in FOLDER, as
benchmarks/attacks.py does. By labels: the first crop of each of the nine photographs, L2 with any
values, 5,000 queries, seeds 0, 1, 2, the size of the nearest success by then and on the way; ART's
HopSkipJump is in FOLDER too, the best of four settings by the geometric mean of the sizes after
1,000 queries (seed 100). One JSON file for an attacker, ball and seed; what is there is not
measured again.
"""

import contextlib
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import geometric_mean, mean, median
from typing import Any

import numpy as np
import torch
from attacks import Metered, Over, attacked
from torch import Tensor, nn

from fedzo.attacks.attack import AttackSettings, attack
from fedzo.attacks.names import Norm
from fedzo.attacks.region import region_around
from fedzo.attacks.victims.onnx import OnnxVictim, export_onnx
from fedzo.attacks.victims.wrappers import LabelOnly
from scenarios.attacks.attackers import make_attacker
from scenarios.data.photo_networks import photo_network
from scenarios.data.photos import load_photos

BUDGET, LABELS_BUDGET, SEEDS = 2000, 5000, (0, 1, 2)
BALLS: tuple[tuple[Norm, float, str], ...] = (
    ("linf", 4 / 255, "4"),
    ("linf", 2 / 255, "2"),
    ("l2", 2.0, "2.0"),
)
TARGETED = (("linf", 8 / 255, "8"), *BALLS)
ATTACKERS: dict[str, dict[str, Any]] = {
    "stripes": {},
    "square": {"area": 0.2},
}
OTHERS = ("torchattacks Square", "ART Square")
P_INITS, TUNING_SEED = (0.1, 0.2, 0.4, 0.8), 100
BY_LABELS = ("cgba", "hopskipjump", "ART HopSkipJump")
MARKS = (100, 200, 500, 1000, 2000, 5000)
TUNED_AT = 1000
EVALS = tuple(itertools.product((15, 50), (100, 400)))
"""init_eval and max_eval of ART's HopSkipJump."""


def network(folder: str) -> OnnxVictim:
    """Return the victim, written into a folder."""
    path = Path(folder) / "model.onnx"
    export_onnx(photo_network("efficientnet-lite0"), (3, 224, 224), path)
    return OnnxVictim(path)


def measure(victim: OnnxVictim, out: Path, names: list[str], *, targeted: bool) -> None:
    """Attack by every attacker, seed and ball that is not in the folder."""
    photos = load_photos()
    told = victim.ask(photos.images).labels.tolist()
    assert told == photos.labels.tolist()
    cases = [(seed, ball, name) for seed in SEEDS for ball in BALLS for name in names]
    if targeted:
        cases = [(0, ball, name) for ball in TARGETED for name in names]
        apart = torch.from_numpy(np.random.default_rng(0).integers(1, 1000, len(told)))
    for seed, (norm, radius, shown), name in cases:
        file = out / f"{name}-{'target-' if targeted else ''}{norm}-{shown}-{seed}.json"
        if file.exists():
            continue
        settings = AttackSettings(
            norm=norm, radius=radius, query_budget=BUDGET, seed=seed, levels=255
        )
        attacker = make_attacker(name, "logits", ATTACKERS[name] if norm == "linf" else {})
        targets = (photos.labels + apart) % 1000 if targeted else None
        begun = time.perf_counter()
        found = attack(victim, photos.images, photos.labels, attacker, settings, targets=targets)
        seconds = time.perf_counter() - begun
        adversarial = photos.images + torch.stack([f.delta for f in found]).view_as(photos.images)
        saved = (adversarial * 255).round().clamp(0, 255) / 255
        checked = victim.ask(saved).labels
        changes = (saved - photos.images).flatten(1)
        far = changes.abs().amax(dim=1) if norm == "linf" else changes.norm(dim=1)
        facts = {
            "queries": [f.queries for f in found],
            "success": [f.success for f in found],
            "seconds": seconds,
            "false_successes": sum(
                f.success and (int(c) == int(y) if targets is None else int(c) != int(targets[i]))
                for i, (f, c, y) in enumerate(zip(found, checked, photos.labels, strict=True))
            ),
            "outside": int((far > radius * (1 + 1e-5)).sum()),
        }
        file.write_text(json.dumps(facts))
        print(file.name, f"{mean(counted(facts)):.1f} queries, {seconds:.0f} s", flush=True)


class Asked(nn.Module):
    """The victim as a network, for libraries that attack networks."""

    def __init__(self, victim: OnnxVictim):
        super().__init__()
        self.victim = victim

    def forward(self, x: Tensor) -> Tensor:
        scores = self.victim.ask(x).scores
        assert scores is not None
        return scores


def measure_others(victim: OnnxVictim, out: Path, names: list[str]) -> None:
    """Tune other libraries' attacks by scores as ours were, then run every ball and seed."""
    for name, (norm, radius, shown) in itertools.product(names, BALLS):
        tuning = (norm, 2 / 255 if norm == "linf" else radius)
        trials = []
        for p_init in P_INITS:
            file = out / f"{name.replace(' ', '-')}-tuning-{norm}-{p_init}.json"
            facts = _others(victim, file, name, tuning, p_init, TUNING_SEED)
            trials.append((mean(counted(facts)), p_init))
        chosen = min(trials)[1]
        for seed in SEEDS:
            file = out / f"{name.replace(' ', '-')}-{norm}-{shown}-{seed}.json"
            _others(victim, file, name, (norm, radius), chosen, seed)


def _others(
    victim: OnnxVictim, file: Path, name: str, ball: tuple[Norm, float], p_init: float, seed: int
) -> dict[str, Any]:
    """Return a run of another library's attack, from its file or made; tuning has nine images."""
    if not file.exists():
        photos, step = load_photos(), 3 if seed == TUNING_SEED else 1
        meters = [
            Metered(
                Asked(victim),
                image,
                label,
                region_around(image.unsqueeze(0), *ball),
                budget=BUDGET,
                classes=1000,
                levels=255,
            )
            for image, label in zip(
                photos.images[::step], photos.labels.tolist()[::step], strict=True
            )
        ]
        result = attacked(name, meters, {"p_init": p_init}, seed)
        file.write_text(json.dumps({**vars(result), "p_init": p_init}))
        print(file.name, f"{mean(result.queries):.1f} queries, {result.seconds:.0f} s", flush=True)
    facts: dict[str, Any] = json.loads(file.read_text())
    return facts


def measure_labels(victim: OnnxVictim, out: Path, names: list[str]) -> None:
    """Attack by labels; the sizes of the nearest successes by queries are kept."""
    for name in names:
        evals = None
        if name == "ART HopSkipJump":
            trials = []
            for pair in EVALS:
                tuning = f"tuning-{pair[0]}-{pair[1]}"
                sizes = _sizes(victim, out, name, tuning, TUNED_AT, TUNING_SEED, pair)
                reached = [size[MARKS.index(TUNED_AT)] for size in sizes]
                trials.append((geometric_mean(reached), pair))
            evals = min(trials)[1]
        for seed in SEEDS:
            _sizes(victim, out, name, str(seed), LABELS_BUDGET, seed, evals)


def _sizes(
    victim: OnnxVictim,
    out: Path,
    name: str,
    run: str,
    budget: int,
    seed: int,
    evals: tuple[int, int] | None,
) -> list[list[float]]:
    """Return the sizes at MARKS of every image, from the run's file or measured."""
    file = out / f"{name.replace(' ', '-')}-labels-{run}.json"
    if not file.exists():
        photos, curves, begun = load_photos(), [], time.perf_counter()
        for i in range(0, len(photos.labels), 3):
            image, label = photos.images[i : i + 1], photos.labels[i : i + 1]
            if evals:
                drawn = 100 * seed + i
                path = art_path(victim, image, int(label), budget=budget, seed=drawn, evals=evals)
            else:
                settings = AttackSettings(norm="l2", radius=0.01, query_budget=budget, seed=seed)
                attacker = make_attacker(name, "labels", {})
                [one] = attack(LabelOnly(victim), image, label, attacker, settings)
                path = list(one.approach)
            curves.append([min((s for n, s in path if n <= m), default=1e9) for m in MARKS])
            print(file.name, i, [f"{size:.2f}" for size in curves[-1]], flush=True)
        seconds = time.perf_counter() - begun
        file.write_text(json.dumps({"sizes": curves, "seconds": seconds, "evals": evals}))
    sizes: list[list[float]] = json.loads(file.read_text())["sizes"]
    return sizes


def art_path(
    victim: OnnxVictim,
    image: Tensor,
    label: int,
    *,
    budget: int,
    seed: int,
    evals: tuple[int, int],
) -> list[tuple[int, float]]:
    """Return (queries, size) of each nearer success of ART's HopSkipJump."""
    from art.attacks.evasion import HopSkipJump
    from art.estimators.classification import BlackBoxClassifier

    path: list[tuple[int, float]] = [(0, 1e9)]
    asked, region = 0, region_around(image, "l2", 1e-3)

    def answer(batch: np.ndarray) -> np.ndarray:
        nonlocal asked
        pictures = torch.from_numpy(np.asarray(batch, dtype=np.float32))
        told = victim.ask(pictures).labels
        for picture, said in zip(pictures, told.tolist(), strict=True):
            asked += 1
            size = region.size((picture - image[0]).reshape(-1))
            if said != label and size < path[-1][1]:
                path.append((asked, size))
        if asked >= budget:
            raise Over
        return np.eye(1000, dtype=np.float32)[told.numpy()]

    np.random.seed(seed)  # noqa: NPY002  (ART draws from it)
    classifier = BlackBoxClassifier(answer, (3, 224, 224), 1000, clip_values=(0, 1))
    first, most = evals
    theirs = HopSkipJump(
        classifier, norm=2, max_iter=1000, init_eval=first, max_eval=most, verbose=False
    )
    with contextlib.suppress(Over):
        theirs.generate(image.numpy(), y=np.array([label]))
    return path


def counted(facts: dict[str, list[int]]) -> list[int]:
    """Return the queries of each image, a failure's being the budget."""
    pairs = zip(facts["queries"], facts["success"], strict=True)
    return [queries if success else BUDGET for queries, success in pairs]


def table(out: Path) -> None:
    """Print a row for every attacker and ball that is in the folder."""
    print("| ball | attacker | seeds | success | mean queries | median | s for 27 images |")
    balls = [f"{norm}-{shown}" for norm, _, shown in BALLS]
    balls += [f"target-{norm}-{shown}" for norm, _, shown in TARGETED]
    for ball in balls:
        for name in (*ATTACKERS, *OTHERS):
            files = sorted(out.glob(f"{name.replace(' ', '-')}-{ball}-[0-9].json"))
            runs = [json.loads(file.read_text()) for file in files]
            if not runs:
                continue
            means = torch.tensor([mean(counted(run)) for run in runs])
            each = [q for run in runs for q in counted(run)]
            rate = mean(s for run in runs for s in run["success"])
            seconds = median(run["seconds"] for run in runs)
            error = float(means.std() / len(runs) ** 0.5) if len(runs) > 1 else float("nan")
            print(
                f"| {ball} | {name} | {len(runs)} | {rate:.2f} | {means.mean():.0f} ±"
                f" {error:.0f} | {median(each):.0f} | {seconds:.0f} |"
            )
    print("| attacker by labels |", *(f"{mark} |" for mark in MARKS), "s |")
    for name in BY_LABELS:
        for file in sorted(out.glob(f"{name.replace(' ', '-')}-labels-[0-9].json")):
            facts = json.loads(file.read_text())
            sizes = (median(column) for column in zip(*facts["sizes"], strict=True))
            shown = " | ".join(f"{size:.2f}" for size in sizes)
            print(f"| {name}, seed {file.stem[-1]} | {shown} | {facts['seconds']:.0f} |")


if __name__ == "__main__":
    folder, *given = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if given == ["--table"]:
        table(Path(folder))
        sys.exit()
    if "--peers" in given:
        place = given.index("--peers")
        sys.path.append(given[place + 1])
        del given[place : place + 2]
    with tempfile.TemporaryDirectory() as written:
        if "--labels" in given:
            given.remove("--labels")
            measure_labels(network(written), Path(folder), given or list(BY_LABELS))
        elif "--others" in given:
            given.remove("--others")
            measure_others(network(written), Path(folder), given or list(OTHERS))
        else:
            targeted = "--targeted" in given
            names = [name for name in given if name != "--targeted"] or list(ATTACKERS)
            measure(network(written), Path(folder), names, targeted=targeted)

"""Attacks on a pretrained network of photographs: EfficientNet-Lite0 at 224 x 224 x 3.

    python benchmarks/photos.py OUT [ATTACKER ...]          # hours on one core; needs fedzo[vision]

All 27 photographs, whole steps of 1/255, 2,000 queries an image, seeds 0, 1, 2; a failure counts as
2,000. One JSON file for an attacker, norm, radius and seed, with queries and success by image, and
the seconds; what is there is not measured again. `python benchmarks/photos.py OUT --table` prints
what is there.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median

import torch

from fedzo.attacks.attack import AttackSettings, attack
from fedzo.attacks.victims.onnx import OnnxVictim, export_onnx
from scenarios.attacks.attackers import make_attacker
from scenarios.data.photos import load_photos
from scenarios.victims.photo_networks import photo_network

BUDGET, SEEDS = 2000, (0, 1, 2)
BALLS = (("linf", 4), ("linf", 2))
ATTACKERS = {"thompson_square": {}, "square": {"area": 0.2}}


def measure(out: Path, names: list[str]) -> None:
    """Attack by every attacker, seed and ball that is not in the folder."""
    torch.set_num_threads(1)
    photos = load_photos()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(photo_network("efficientnet-lite0"), (3, 224, 224), path)
        victim = OnnxVictim(path)
    told = victim.ask(photos.images).labels.tolist()
    assert told == photos.labels.tolist()
    cases = [(seed, ball, name) for seed in SEEDS for ball in BALLS for name in names]
    for seed, (norm, steps), name in cases:
        file = out / f"{name}-{norm}-{steps}-{seed}.json"
        if file.exists():
            continue
        settings = AttackSettings(
            norm=norm, radius=steps / 255, query_budget=BUDGET, seed=seed, levels=255
        )
        attacker = make_attacker(name, "logits", ATTACKERS[name])
        begun = time.perf_counter()
        found = attack(victim, photos.images, photos.labels, attacker, settings)
        seconds = time.perf_counter() - begun
        adversarial = photos.images + torch.stack([f.delta for f in found]).view_as(photos.images)
        checked = victim.ask((adversarial * 255).round().clamp(0, 255) / 255).labels
        far = (adversarial - photos.images).abs().amax(dim=(1, 2, 3)) * 255
        facts = {
            "queries": [f.queries for f in found],
            "success": [f.success for f in found],
            "seconds": seconds,
            "false_successes": sum(
                f.success and int(c) == int(y)
                for f, c, y in zip(found, checked, photos.labels, strict=True)
            ),
            "outside": int((far > steps + 1e-3).sum()),
        }
        file.write_text(json.dumps(facts))
        print(file.name, f"{mean(counted(facts)):.1f} queries, {seconds:.0f} s", flush=True)


def counted(facts: dict[str, list[int]]) -> list[int]:
    """Return the queries of each image, a failure's being the budget."""
    pairs = zip(facts["queries"], facts["success"], strict=True)
    return [queries if success else BUDGET for queries, success in pairs]


def table(out: Path) -> None:
    """Print a row for every attacker and ball that is in the folder."""
    print("| linf | attacker | seeds | success | mean queries | median | s for 27 images |")
    for norm, steps in BALLS:
        for name in ATTACKERS:
            files = sorted(out.glob(f"{name}-{norm}-{steps}-*.json"))
            runs = [json.loads(file.read_text()) for file in files]
            if not runs:
                continue
            means = torch.tensor([mean(counted(run)) for run in runs])
            each = [q for run in runs for q in counted(run)]
            rate = mean(s for run in runs for s in run["success"])
            seconds = median(run["seconds"] for run in runs)
            error = float(means.std() / len(runs) ** 0.5) if len(runs) > 1 else float("nan")
            print(
                f"| {steps}/255 | {name} | {len(runs)} | {rate:.2f} | {means.mean():.0f} ±"
                f" {error:.0f} | {median(each):.0f} | {seconds:.0f} |"
            )


if __name__ == "__main__":
    folder, *given = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    if given == ["--table"]:
        table(Path(folder))
    else:
        measure(Path(folder), given or list(ATTACKERS))

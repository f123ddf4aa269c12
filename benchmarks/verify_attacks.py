"""Attack by every attacker in every norm, and verify each success from the saved files alone.

    python benchmarks/verify_attacks.py OUT [--photos]       # half an hour; --photos: an hour more

`fedzo attack --png` writes images, perturbations and pictures; then, with numpy, Pillow and
onnxruntime, nothing of fedzo's: the picture's values are in range by its format, the array's are
looked at, the norm of the difference is taken anew (float64), and an ONNX file of the same network
says the class. A success that is outside, or answered as its label, is counted; there should be
none. Victims: mnist (as a module and through onnxruntime) and fashion, by scores, labels and order.
"""

import functools
import itertools
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

from fedzo.attacks.victims.onnx import export_onnx
from fedzo.catalog import ATTACKER_LINES
from scenarios.cli.app import app
from scenarios.data.photo_networks import photo_network
from scenarios.victims.shipped import shipped_network

Images = NDArray[np.float64]
Answer = Callable[[Images], NDArray[np.int64]]
RADII = {"linf": "0.2", "l2": "2", "l0": "60", "patch": "10"}
PHOTO_RADII = {"linf": "8/255", "l2": "4", "l0": "2000", "patch": "80"}
TELLS = {"rank": "order", "edge": "labels", "hopskipjump": "labels", "cgba": "labels"}
ROUNDING = 1e-5


def size(change: Images, norm: str) -> float:
    """Return the norm of a change [c, h, w]."""
    if norm == "linf":
        return float(np.abs(change).max())
    if norm == "l2":
        return float(np.sqrt(np.square(change).sum()))
    rows, columns = np.nonzero(np.abs(change).max(axis=0) > ROUNDING)
    if norm == "l0":
        return float(len(rows))
    return float(max(np.ptp(rows), np.ptp(columns)) + 1) if len(rows) else 0.0


def read(path: Path) -> Images:
    """Return a picture's values [c, h, w] in [0, 1]."""
    values = np.asarray(Image.open(path), dtype=np.float64) / 255
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def verify(folder: Path, answer: Answer) -> tuple[int, int, int]:
    """Return how many successes a folder tells of, how many are false, and how many outside."""
    report = json.loads((folder / "report.json").read_text())
    kept = load_file(folder / "images.safetensors")
    successes = [one for one in report["each"] if one["success"]]
    false = outside = 0
    for one in successes:
        original = kept["images"][one["image"]].astype(np.float64)
        change = kept["perturbations"][one["image"]].astype(np.float64).reshape(original.shape)
        stem = folder / "png" / f"{one['place']:05}"
        pairs = [(original, original + change)]
        pairs += [tuple(read(Path(f"{stem}-{kind}.png")) for kind in ("original", "adversarial"))]  # type: ignore[list-item]
        for before, after in pairs:
            in_range = after.min() >= -ROUNDING and after.max() <= 1 + ROUNDING
            inside = size(after - before, report["norm"]) <= report["radius"] * (1 + ROUNDING)
            outside += not (in_range and inside)
            said = int(answer(after[None])[0])
            target = report["target"]
            false += said == one["label"] if target is None else said != target
    return len(successes), false, outside


def network(name: str, folder: str) -> Answer:
    """Return what an ONNX file of a network answers."""
    photographs = name.startswith("efficientnet")
    module = photo_network(name) if photographs else shipped_network(name).module
    path = Path(folder) / f"{name}.onnx"
    export_onnx(module, (3, 224, 224) if photographs else (1, 28, 28), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [given] = [one.name for one in session.get_inputs()]

    def answer(images: Images) -> NDArray[np.int64]:
        [scores] = session.run(None, {given: images.astype(np.float32)})
        return np.asarray(scores).argmax(axis=1)

    return answer


def _told(counts: Sequence[int] | NDArray[np.int64]) -> str:
    return f"{counts[0]} successes, {counts[1]} false, {counts[2]} outside"


def main(out: Path, *, photos: bool) -> None:
    """Attack, verify and print a line a run and one of all."""
    cases = list(itertools.product(("mnist", "mnist-onnx"), RADII, ATTACKER_LINES))
    cases += [("mnist", norm, f"{name} --target 3") for norm in RADII for name in ATTACKER_LINES]
    cases += [("mnist", "patch", f"{name} --placements 4") for name in ("thompson", "square")]
    cases += itertools.product(("fashion",), RADII, ATTACKER_LINES)
    if photos:
        attackers = ("stripes", "square", "thompson", "edge", "cgba", "simba")
        cases += itertools.product(("efficientnet-lite0-onnx",), PHOTO_RADII, attackers)
    totals = np.zeros(3, dtype=np.int64)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        answers = functools.cache(lambda name: network(name, folder))
        for victim, norm, words in cases:
            attacker, *more = words.split()
            large = victim.startswith("efficientnet")
            to = out / f"{victim}-{norm}-{words.replace(' ', '')}"
            told = ["--wrap", TELLS[attacker]] if attacker in TELLS else []
            radius = (PHOTO_RADII if large else RADII)[norm]
            given = f"attack {victim} --attacker {attacker} --norm {norm} --radius {radius}"
            sizes = f"--images {3 if large else 5} --query-budget {200 if large else 150} --png"
            if not (to / "report.json").exists():
                arguments = [*given.split(), *sizes.split(), *more, *told, "--out", str(to)]
                done = CliRunner().invoke(app, [*arguments, "--json"])
                if done.exit_code == 2:
                    reason = done.stderr.strip().splitlines()[-1]
                    print(f"{to.name}: refused: {reason[:90]}", flush=True)
                    continue
                assert done.exit_code == 0, done.output
            counts = verify(to, answers(victim.removesuffix("-onnx")))
            totals += counts
            print(f"{to.name}: {_told(counts)}", flush=True)
    print(f"all: {_told(totals)}")
    sys.exit(int(totals[1:].any()))


if __name__ == "__main__":
    place, *rest = sys.argv[1:]
    main(Path(place), photos="--photos" in rest)

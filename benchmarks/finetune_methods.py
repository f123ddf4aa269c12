"""All methods on a task at the same forward passes: tuned alike, shown on three other seeds.

    python benchmarks/finetune_methods.py TASK --forwards N --out FILE.json
        [--methods mezo,fzoo] [--rates 7] [--center 1e-4] [--layers K] [--adapters R]
        [--data-dir DIR]

A method's rate is the one with the least mean training loss over the last tenth of a run with seed
100: three rates are tried, half a power of ten apart, and further ones beyond the best while that
is at an edge, at most `--rates` in all; `edge` says that it still was. Seeds 0, 1 and 2 are shown.
Runs that the file holds are not repeated.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import torch

from scenarios.finetune.trainers import TRAINERS, Finetuning
from scenarios.finetune.training import finetune

TUNING, SHOWN = 100, (0, 1, 2)
CENTERS = {
    "fzoo": 3e-2, "zo_adam": 1e-3, "zo_sign": 1e-4, "zoodip": 1e-3, "cge": 1e-2, "zo_muon": 3e-3,
    "activity": 1e-3, "first_order": 1e-3, "relizo": 1.0, "zo_momentum": 3e-4, "rank_sgd": 3e-2,
    "evolution": 1e-2, "consensus": 1e-2, "deepzero": 1e-2, "gp": 1.0,
}  # fmt: skip
"""Where the search for a rate begins; 3e-3 for those left out."""
LEFT_OUT = ("qzo", "zoro")
"""Needs quantized weights; holds all directions."""
SLOW = {"shifted_digits": ("cge", "deepzero"), "digits_transformer": ("cge", "deepzero")}
"""An axis a number is more than the budget."""


def run(chosen: argparse.Namespace, method: str, lr: float, seed: int) -> dict[str, object]:
    config = Finetuning(
        task=chosen.task, method=method, lr=lr, seed=seed, forwards=chosen.forwards, looks=11,
        layers=chosen.layers, adapters=chosen.adapters, data_dir=chosen.data_dir,
    )  # fmt: skip
    began = time.process_time()
    looks = finetune(config)
    return {
        "method": method, "lr": lr, "seed": seed, "cpu_seconds": time.process_time() - began,
        "train_loss": looks[-1].train_loss, "test_loss": looks[-1].test_loss,
        "start": looks[0].test_accuracy,
        "accuracy": [look.test_accuracy for look in looks],
        "forwards": [look.forwards for look in looks],
    }  # fmt: skip


def rate(center: float, k: int) -> float:
    return float(f"{center * 10 ** (0.5 * k):.3g}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task")
    parser.add_argument("--forwards", type=int, default=10_000)
    parser.add_argument("--methods", default=",".join(m for m in TRAINERS if m not in LEFT_OUT))
    parser.add_argument("--rates", type=int, default=7)
    parser.add_argument("--center", type=float, default=0.0, help="0: that of each method")
    parser.add_argument("--layers", type=int, default=-1)
    parser.add_argument("--adapters", type=int, default=0, help="their rank; 0: none")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(chosen.out.read_text()) if chosen.out.exists() else []

    def known(method: str, lr: float, seed: int) -> dict[str, object]:
        for row in rows:
            if (row["method"], row["lr"], row["seed"]) == (method, lr, seed):
                return row
        rows.append(run(chosen, method, lr, seed))
        chosen.out.write_text(json.dumps(rows, indent=1) + "\n")
        return rows[-1]

    for method in chosen.methods.split(","):
        if method in SLOW.get(chosen.task, ()):
            continue
        center = chosen.center or CENTERS.get(method, 3e-3)
        tried: dict[int, float] = {}
        todo = [-1, 0, 1]
        while todo:
            for k in todo:
                loss = known(method, rate(center, k), TUNING)["train_loss"]
                tried[k] = loss if math.isfinite(loss) else math.inf  # type: ignore[arg-type]
            best, ends = min(tried, key=lambda k: tried[k]), (min(tried), max(tried))
            beyond = best - 1 if best == ends[0] or tried[best] == math.inf else best + 1
            todo = [beyond] if beyond not in tried and len(tried) < chosen.rates else []
        found = [known(method, rate(center, best), seed) for seed in SHOWN]
        last = [row["accuracy"][-1] for row in found]  # type: ignore[index]
        edge = " edge" if best in ends else ""
        told = " ".join(f"{value:.3f}" for value in last)
        print(
            f"{method:18} lr {rate(center, best):.2g}{edge:5} {statistics.mean(last):.3f} ({told})",
            flush=True,
        )


if __name__ == "__main__":
    main()

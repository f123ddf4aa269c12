"""What first order reaches on the tasks of scenarios.finetune, and what the frozen network does.

    python benchmarks/finetune_reference.py TASK... [--layers K] [--lrs 1e-4,3e-4] [--epochs N]
        [--seeds 0,1,2] [--examples N] [--data-dir DIR] [--out docs/results/finetune]

Frozen: logistic regression on the features below the head; its penalty of {0.01, 0.1, 1, 10} is
the one that does best on a fifth of the training examples, then all are used. First order: AdamW on
the last layers and the head, batches of 16 (texts) or 32, no schedule; after each epoch the mean
loss of its batches, and test loss and accuracy. An example-forward is one example once through the
trained layers; its backward pass is not counted. Runs that are in TASK.json are not repeated.
"""

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedzo.randomness import stream
from scenarios.finetune.task import HEAD, Task, logistic_head, mapped
from scenarios.finetune.tasks import TaskName, make_task

PENALTIES = (0.01, 0.1, 1.0, 10.0)


def frozen(task: Task, seed: int) -> dict[str, Any]:
    """Return the test accuracy of logistic regression on the features as they are."""
    features = task.module[: list(dict(task.module.named_children())).index(HEAD)]
    seen, held = (
        mapped(features, part.inputs, padded=task.padded) for part in (task.train, task.test)
    )
    order = torch.from_numpy(stream(seed, "reference", "held").permutation(len(seen)))
    cut = len(order) * 4 // 5
    fit, judge = order[:cut], order[cut:]
    targets = task.train.targets

    def accuracy(rows: torch.Tensor, z: torch.Tensor, y: torch.Tensor, penalty: float) -> float:
        weight, bias = logistic_head(seen[rows], targets[rows], penalty)
        return float(((z @ weight.T + bias).argmax(-1) == y).double().mean())

    tried = {p: accuracy(fit, seen[judge], targets[judge], p) for p in PENALTIES}
    best = max(tried, key=lambda p: tried[p])
    whole = {p: accuracy(order, held, task.test.targets, p) for p in (1.0, best)}
    return {
        "seed": seed,
        "penalty": best,
        "accuracy": whole[best],
        "accuracy_penalty_1": whole[1.0],
    }


def first_order(task: Task, seed: int, lr: float, epochs: int) -> list[dict[str, float]]:
    """Train in place; return what is known before and after each epoch."""
    optimizer = torch.optim.AdamW(task.module.parameters(), lr=lr)
    generator = stream(seed, "reference", "batches")
    size = 16 if task.padded else 32
    curve, passed, began = [], 0, time.process_time()
    for epoch in range(epochs + 1):
        losses = []
        for rows in task.batches(size, generator=generator) if epoch else []:
            inputs, targets = task.train_batch(rows)
            loss = task.losses(task.module(inputs), targets).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            passed += len(rows)
        seconds = time.process_time() - began
        test = task.evaluate(task.test)
        train = sum(losses) / len(losses) if losses else task.evaluate(task.train).loss
        curve.append(
            {
                "example_forwards": passed,
                "cpu_seconds": round(seconds, 2),
                "train_loss": round(train, 5),
                "test_loss": round(test.loss, 5),
                "test_accuracy": round(test.accuracy, 5),
            }
        )
    return curve


def run(name: TaskName, wanted: argparse.Namespace) -> None:
    """Make what is missing in the file of a task."""
    path = wanted.out / f"{name}.json"
    told = json.loads(path.read_text()) if path.exists() else {"task": name, "runs": []}
    for seed in map(int, wanted.seeds.split(",")):
        made = make_task(
            name,
            seed=seed,
            layers=wanted.layers,
            examples=wanted.examples,
            data_dir=wanted.data_dir,
        )
        base = frozen(made, seed)
        for lr in map(float, wanted.lrs.split(",")):
            key = {"layers": len(made.layers), "lr": lr, "seed": seed, "examples": len(made.train)}
            if any(key.items() <= one.items() for one in told["runs"]):
                continue
            task = replace(made, module=copy.deepcopy(made.module))
            curve = first_order(task, seed, lr, wanted.epochs)
            told["runs"].append({**key, "frozen": base, "curve": curve})
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(told, indent=1) + "\n")
            print(name, key, "frozen", base, "first order", curve[-1], flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--layers", type=int, default=-1)
    parser.add_argument("--lrs", default="1e-4")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--examples", type=int, default=0)
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--out", type=Path, default=Path("docs/results/finetune"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    for name in wanted.tasks:
        run(name, wanted)


if __name__ == "__main__":
    main()

"""Small runs of every strategy, and what is written down of each: what the golden tests compare.

`PYTHONPATH=tests python -m golden.runs` writes golden.json anew; say in the commit why.
"""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from worlds import ON_A_CLOCK, ON_VECTORS

from fedzo.parts import has_part
from fedzo.records.history import RoundRecord
from scenarios.runs.experiment import Experiment, make_experiment
from scenarios.runs.names import STRATEGIES
from scenarios.runs.run_result import RunResult
from scenarios.runs.simulate import simulate
from strategies.core.privacy_config import PrivacyConfig

GOLDEN = Path(__file__).with_name("golden.json")
SETTINGS = Path(__file__).with_name("settings.json")
QUADRATIC = {"scenario.dim": 16, "strategy.participation": 0.7}
CLASSES = {
    "scenario.dataset": "digits",
    "scenario.hidden": 8,
    "scenario.max_examples": 200,
    "strategy.participation": 0.7,
}
PUBLISHED = {
    "client.num_features": 20,
    "client.max_points": 20,
    "client.active_queries": 1,
    "strategy.local_steps": 2,
}
PRIVATE = {"strategy.participation": 1.0, "strategy.epsilon": 1000.0}
SEEDED = {"strategy.noise_source": "stream", "strategy.report_shortened": True}
LIARS = {"byzantine.attack": "alie", "byzantine.num_clients": 1, "strategy.num_byzantine": 1}
SLOPES = {"client.gradient": "zeroth_order", "client.anchor_directions": 5}

Case = tuple[str, str, dict[str, Any]]
"""Scenario, strategy, settings."""


def _plain(strategy: str) -> Case:
    private = PRIVATE if STRATEGIES[strategy].rule == "gradient_difference" else {}
    return "quadratic", strategy, {**QUADRATIC, **private}


def _fzoos(variant: str) -> Case:
    more = PUBLISHED if variant == "paper" else {}
    return "quadratic", "fzoos", {**QUADRATIC, "strategy.variant": variant, **more}


CASES: dict[str, Case] = {
    **{
        name: _plain(name)
        for name in ON_VECTORS
        if name not in ("fzoos", "coded_gd", "dadao", *ON_A_CLOCK)
    },
    **{f"fzoos-{v}": _fzoos(v) for v in ("improved", "on_client", "paper")},
    "fzoos-official": (
        "quadratic",
        "fzoos",
        {**QUADRATIC, "strategy.variant": "official", **PUBLISHED, "client.max_points": 6},
    ),
    "fzoos-one_exchange": (
        "quadratic",
        "fzoos",
        {**QUADRATIC, "strategy.variant": "paper", "strategy.one_exchange": True, **PUBLISHED},
    ),
    "fedzo-residual": ("quadratic", "fedzo", {**QUADRATIC, "client.estimator": "residual"}),
    "fedzo-coordinate": ("quadratic", "fedzo", {**QUADRATIC, "client.estimator": "coordinate"}),
    "fedzo-sphere": (
        "quadratic",
        "fedzo",
        {**QUADRATIC, "client.directions": "sphere", "client.lengthscale": 1.5},
    ),
    "fedzo-safeguard": ("quadratic", "fedzo", {**QUADRATIC, "strategy.safeguard": True}),
    "fedzo-noise": ("quadratic", "fedzo", {**QUADRATIC, "scenario.noise_std": 0.1}),
    "fedzo-liar": ("quadratic", "fedzo", {**QUADRATIC, **LIARS, "strategy.aggregator": "krum"}),
    "fedzo-faults": ("quadratic", "fedzo", {**QUADRATIC, "faults.drop": 0.2, "faults.delay": 0.1}),
    "fedamd-slopes": ("quadratic", "fedamd", {**QUADRATIC, **SLOPES}),
    "fedamd-slopes-liar": (
        "quadratic",
        "fedamd",
        {**QUADRATIC, **SLOPES, **LIARS, "strategy.aggregator": "trimmed_mean"},
    ),
    "fedpage-slopes": ("quadratic", "fedpage", {**QUADRATIC, **SLOPES}),
    "fedsaga-walk": ("quadratic", "fedsaga", {**QUADRATIC, "strategy.local_steps": 3}),
    "fedsaga-slopes": (
        "quadratic",
        "fedsaga",
        {**QUADRATIC, "client.gradient": "zeroth_order", "client.num_directions": 5},
    ),
    "monna-liar": ("quadratic", "monna", {"scenario.dim": 16, **LIARS, "strategy.mixings": 2}),
    "monna-opposite": (
        "quadratic",
        "monna",
        {"scenario.dim": 16, **LIARS, "byzantine.receivers": "opposite"},
    ),
    "monna-slopes": (
        "quadratic",
        "monna",
        {"scenario.dim": 16, "client.gradient": "zeroth_order", "strategy.graph": "ring"},
    ),
    "dshb-flipped": (
        "classification",
        "dshb",
        {**CLASSES, "byzantine.attack": "label_flip", "byzantine.num_clients": 1},
    ),
    "diff2-filter": (
        "quadratic",
        "diff2",
        {**QUADRATIC, **PRIVATE, "strategy.memory": "filter", "strategy.unit": "client"},
    ),
    "diff2-clients": (
        "quadratic",
        "diff2",
        {**QUADRATIC, **PRIVATE, "strategy.noise": "clients", "strategy.unit": "client"},
    ),
    "diff2-walk": (
        "regression",
        "diff2",
        {
            **PRIVATE,
            "strategy.routine": "bvr_l_sgd",
            "strategy.local_batch": 8,
            "strategy.local_steps": 3,
            "strategy.epsilon": float("inf"),
        },
    ),
    "diff2_zo-records": ("regression", "diff2_zo", PRIVATE),
    "fedavg-batches": ("classification", "fedavg", {**CLASSES, "client.batch_size": 5}),
    "fedzo-batches": ("classification", "fedzo", {**CLASSES, "client.batch_size": 5}),
    "scaffold-batches": ("classification", "scaffold_exact", {**CLASSES, "client.batch_size": 5}),
    "fednova-examples": (
        "classification",
        "fednova",
        {**CLASSES, "strategy.weighting": "examples"},
    ),
    "fedpage-balanced": (
        "classification",
        "fedpage",
        {**CLASSES, "client.batch_size": 4, "client.sampling": "balanced"},
    ),
}
"""What the runs are called, and which they are."""


def experiment(name: str, **more: Any) -> Experiment:
    """Return the experiment of a case, with further settings or another engine."""
    scenario, strategy, settings = CASES[name]
    engine = str(more.pop("engine", "inprocess"))
    private = has_part(STRATEGIES[strategy].config, PrivacyConfig)
    own = {**settings, **(SEEDED if private else {}), **more}
    budget = 4000 if scenario == "quadratic" and strategy in ("fedzo", "fzoos") else None
    return make_experiment(
        scenario,
        strategy,
        engine=engine,
        num_rounds=4,
        num_clients=5,
        seed=7,
        query_budget=budget,
        settings=own,
        excused=SEEDED,
    )


def counts_of(records: list[RoundRecord]) -> str:
    """Return a digest of everything that is counted in a history: no value, no second."""
    kept = [_without_values(record) for record in records]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _without_values(record: RoundRecord) -> dict[str, Any]:
    measured = ("value", "metrics", "nodes", "wall_s", "noise_std", "epsilon", "epsilon_run")
    found = asdict(replace(record, failures=dict.fromkeys(record.failures, "")))
    later = ("shortened", "virtual", "jobs")
    return {k: str(v) for k, v in found.items() if k not in (*measured, *later)}


def written(result: RunResult) -> dict[str, Any]:
    """Return what is written down of a run."""
    records = list(result.records)
    values = [
        record.to_json()
        for record in (replace(r, wall_s=0.0, failures={}, jobs=()) for r in records)
    ]
    last = result.last_records[-1]
    return {
        "value": last.value,
        "queries": last.queries,
        "gradients": last.gradients,
        "floats": [last.floats_up, last.floats_down],
        "bytes": [last.bytes_up, last.bytes_down],
        "counts": counts_of(records),
        "bits": hashlib.sha256("\n".join(values).encode()).hexdigest()[:16],
        "x": hashlib.sha256(result.x.numpy().tobytes()).hexdigest()[:16],
    }


def arithmetic() -> str:
    """Return a digest of what this machine makes of sums, products, roots and eigenvectors."""
    row = torch.linspace(0.1, 3, 300, dtype=torch.float64)
    square = torch.outer(row, row.flip(0)).sin()
    made = [square @ square, torch.linalg.eigh(square @ square.T)[0], row.exp().log(), row.float()]
    made += [
        torch.linalg.cholesky(square @ square.T + torch.eye(300)),
        (square.float() @ row.float()),
    ]
    digest = hashlib.sha256()
    for tensor in made:
        digest.update(tensor.contiguous().numpy().tobytes())
    return f"{torch.__version__} {digest.hexdigest()[:16]}"


def settings_of(strategy: str) -> dict[str, Any]:
    """Return every setting of a strategy and its clients, in order, with its default."""
    made = make_experiment("quadratic", strategy, num_clients=6)
    return {k: v for k, v in made.settings.items() if k.startswith(("strategy.", "client."))}


def main() -> None:
    """Write all cases down."""
    found = {name: written(simulate(experiment(name))) for name in CASES}
    GOLDEN.write_text(json.dumps({"arithmetic": arithmetic(), "runs": found}, indent=1) + "\n")
    settings = {name: settings_of(name) for name in STRATEGIES}
    SETTINGS.write_text(json.dumps(settings, indent=1) + "\n")


if __name__ == "__main__":
    main()

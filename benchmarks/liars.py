"""What one liar of seven heterogeneous clients costs under every rule, with and without screening.

    python benchmarks/liars.py OUT.jsonl [STRATEGY,...]

Quadratic, d = 20, heterogeneity 5, 50 rounds, seeds 0 to 2; client 6 lies in every answer but those
that judge x. A line says how far F, the mean over the six honest clients, ends above its minimum.
`outlier_multiple` inf with non_finite=pass leaves every lie to the rule; the oracle drops the liar.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fedzo.errors import FedzoError
from fedzo.protocol.exchange import Exchange, Replies
from fedzo.runtime.engine import Engine, Middleware
from scenarios.runs.engines import build_scenario, open_engine
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import build_strategy
from strategies.core.driver import RunSettings, run_rounds

CLIENTS, LIAR, DIM, ROUNDS = 7, 6, 20, 50
RULES = [
    "trimmed_mean",
    "median",
    "geometric_median",
    "krum",
    "multi_krum",
    "centered_clipping",
    "mean_around_median",
    "minimum_diameter",
    "smea",
    "caf",
    "nearest_neighbor_average",
    "adaptive_clip",
    "nnm | trimmed_mean",
    "nnm | median",
    "bucketing | median",
]
LIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda own, _: own,
    "nan": lambda own, _: torch.full_like(own, float("nan")),
    "-1e150": lambda own, _: torch.full_like(own, -1e150),
    "+1000": lambda own, _: torch.full_like(own, 1e3),
    "1e6 times": lambda own, _: 1e6 * own,
    "100 times": lambda own, _: 100 * own,
    "10 times": lambda own, _: 10 * own,
    "-m": lambda _, honest: -honest.mean(dim=0),
    "-6 m": lambda _, honest: -6 * honest.mean(dim=0),
    "alie": lambda _, honest: honest.mean(dim=0) + 1.5 * honest.std(dim=0),
    "zero": lambda own, _: torch.zeros_like(own),
}


class Lying(Middleware):
    """Replaces what LIAR answers; without a lie, leaves it out."""

    def __init__(self, inner: Engine, lie: str) -> None:
        super().__init__(inner)
        self._lie = lie

    def perform(self, exchanges: Sequence[Exchange], *, timeout_s: float) -> list[Replies]:
        received = self._inner.perform(exchanges, timeout_s=timeout_s)
        return [self._said(e, r) for e, r in zip(exchanges, received, strict=True)]

    def _said(self, exchange: Exchange, replies: Replies) -> Replies:
        if exchange.kind == "evaluate" or LIAR not in replies.client_ids:
            return replies
        if self._lie == "oracle":
            return replies.without({LIAR: "left out"})
        row = list(replies.client_ids).index(LIAR)
        told = {}
        for name, tensor in replies.tensors.items():
            told[name] = tensor.clone()
            honest = torch.cat([tensor[:row], tensor[row + 1 :]])
            if tensor.is_floating_point() and honest.numel():
                told[name][row] = LIES[self._lie](tensor[row], honest)
        return replace(replies, tensors=told)


def gap(strategy: str, rule: str, lie: str, multiple: float, seed: int) -> float | None:
    """Return F of the honest clients above its minimum at the end, None where the run fails."""
    settings = {
        "scenario.dim": DIM,
        "strategy.aggregator": rule,
        "strategy.num_byzantine": 1,
        "strategy.outlier_multiple": multiple,
        "strategy.non_finite": "pass" if multiple == float("inf") else "auto",
    }
    experiment = make_experiment(
        "quadratic", strategy, num_rounds=ROUNDS, num_clients=CLIENTS, seed=seed, settings=settings
    )
    scenario = build_scenario(experiment)
    limits = RunSettings(num_clients=CLIENTS, num_rounds=ROUNDS, seed=seed)
    with open_engine(experiment, scenario) as engine:
        lying, method = Lying(engine, lie), build_strategy(experiment)
        try:
            x = run_rounds(method, lying, scenario.problem(0), limits).state.x
        except FedzoError:
            return None
    honest = scenario.cohort([c for c in range(CLIENTS) if c != LIAR], 0)
    square, linear = honest.square.mean(dim=0), honest.linear.mean(dim=0)  # type: ignore[attr-defined]
    z = (-linear / (2 * square)).clamp(-10, 10)
    least = float((((square * z + linear) * z).sum() + 1) / (10 * DIM))
    return float(honest.value(x.expand(CLIENTS - 1, 1, -1)).mean()) - least


def main() -> None:
    out = Path(sys.argv[1])
    strategies = sys.argv[2].split(",") if len(sys.argv) > 2 else ["fedamd", "fedavg"]
    with out.open("a") as file:
        for strategy in strategies:
            for rule in RULES:
                for lie in [*LIES, "oracle"]:
                    for multiple in (float("inf"), 10.0, 3.0):
                        gaps = [gap(strategy, rule, lie, multiple, seed) for seed in (0, 1, 2)]
                        key = {"strategy": strategy, "rule": rule, "lie": lie}
                        line = {**key, "multiple": str(multiple), "gaps": gaps}
                        file.write(json.dumps(line) + "\n")
                        file.flush()


if __name__ == "__main__":
    main()

"""Audit a private strategy: run it on neighboring data sets and bound its epsilon from below.

Two worlds of a few clients differ in one record, the canary: its target is huge in one and minus
that in the other, so that its clipped gradients are opposite at every point, and their difference
is the whole sensitivity. Each run takes the strategy through its rounds by hand. After every round
the attacker knows what would have been published without noise in each world, at the very points
that were reached, and what was published; his statistic is the log-likelihood ratio

    sum_r (|v_r - v_r(D)|^2 - |v_r - v_r(D')|^2) / (2 s_r^2)

For strategies whose noise is that of every release in one vector v (or x): dp_gd, diff2, their
zeroth-order forms, dp_fedavg, dp_fedzo; and dp_seed_scalar, which publishes coefficients and moves
a module, one that both worlds share: they are asked at the same places. See fedzo.privacy.audit for
the bounds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor, nn
from torch.nn import functional

from clients.rules import make_rules
from fedzo.config import Scalar, field_names, require
from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.objective import ModuleObjective, restore_parameters
from fedzo.parts import find_part, has_part
from fedzo.privacy.accountant import epsilon_of, noise_for
from fedzo.privacy.audit import AuditResult, Floats, audit_scores
from fedzo.protocol.exchange import Moment
from fedzo.randomness import stream
from fedzo.runtime.engine import Engine
from fedzo.runtime.inprocess import InProcessEngine
from scenarios.data.networks import random_mlp
from scenarios.problems.mlp_cohort import MLPShards
from scenarios.runs.experiment import Experiment, build_strategy, make_experiment
from scenarios.runs.names import STRATEGIES, strategy_entry
from strategies.core.asking import played
from strategies.core.base import RoundStrategy
from strategies.core.privacy_config import PrivacyConfig
from strategies.core.rounds import RoundConfig, RoundPlan

_LAYERS, _RECORDS, _CANARY = (3, 2, 1), 5, 100.0


@dataclass(frozen=True, slots=True)
class AuditWorld:
    """A few clients with five records each; the first record of the first is the canary.

    module: where x is, for strategies that move one.
    """

    shards: MLPShards
    module: nn.Module | None = None
    noise_std: float = 0.0

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        if self.module is None:
            return self.shards.of(client_ids)
        objectives = []
        for first in (client * _RECORDS for client in client_ids):
            rows = slice(first, first + _RECORDS)
            inputs, targets = self.shards.inputs[rows], self.shards.targets[rows].unsqueeze(1)
            objectives.append(ModuleObjective(self.module, functional.mse_loss, inputs, targets))
        return cohort_of(objectives)


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit, and the scores of all runs on D and on D'."""

    result: AuditResult
    without: Floats
    with_canary: Floats


def audit(
    strategy: str,
    *,
    num_rounds: int = 4,
    num_clients: int = 2,
    trials: int = 1000,
    confidence: float = 0.95,
    noise_factor: float = 1.0,
    seed: int = 0,
    settings: Mapping[str, Scalar] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Audit:
    """Run a private strategy `trials` times on each of two neighboring data sets.

    noise_factor: what the noise is multiplied with after it was calibrated; below 1 the claim is
    false, and the audit should say so. Raises ConfigError for strategies that it cannot follow.
    """
    require(trials >= 40, "trials", trials, "at least 40")
    require(num_rounds >= 1, "rounds", num_rounds, "at least 1")
    require(0 < noise_factor < math.inf, "noise_factor", noise_factor, "positive and finite")
    require(0 < confidence < 1, "confidence", confidence, "above 0 and below 1")
    require(seed >= 0, "seed", seed, "0 or more")
    made = _experiment(strategy, num_rounds, num_clients, settings or {})
    config = find_part(made.config("strategy"), PrivacyConfig)
    assert config is not None
    claim, delta = config.epsilon, config.delta
    spent = epsilon_of(1 / (noise_for(claim, delta) * noise_factor), delta)
    noisy = _strategy(made, {"strategy.epsilon": spent})
    quiet = _strategy(made, {"strategy.epsilon": math.inf})
    start = random_mlp(_LAYERS, generator=stream(seed, "audit", "start")).double()
    worlds = neighbors(num_clients, seed)
    in_place = strategy_entry(strategy).rule == "in_place"
    engines = [InProcessEngine(world, make_rules()) for world in worlds]
    scores: list[list[float]] = [[], []]
    for trial in range(trials):
        for which in (0, 1):
            if in_place:  # a module can be moved by one run alone
                engines = _with_module(worlds, start)
            plan = RoundPlan(
                round_index=0,
                num_rounds=num_rounds,
                num_clients=num_clients,
                cohort=range(num_clients),
                seed=int(stream(seed, "audit", trial, which).integers(1 << 62)),
            )
            scores[which].append(_score(noisy, quiet, which, engines, start, plan))
        if progress:
            progress(trial + 1)
    without, with_canary = (np.asarray(found) for found in scores)
    result = audit_scores(without, with_canary, claim=claim, delta=delta, confidence=confidence)
    return Audit(result, without, with_canary)


def neighbors(num_clients: int, seed: int) -> list[AuditWorld]:
    """Return two worlds that differ in the target of one record."""
    random, total = stream(seed, "audit", "records"), num_clients * _RECORDS
    inputs = torch.from_numpy(random.standard_normal((total, _LAYERS[0])))
    targets = torch.from_numpy(random.standard_normal(total))
    worlds = []
    for canary in (_CANARY, -_CANARY):
        own = targets.clone()
        own[0] = canary
        shards = MLPShards(
            inputs=inputs,
            targets=own,
            offsets=_RECORDS * torch.arange(num_clients),
            sizes=torch.full((num_clients,), _RECORDS),
            layers=_LAYERS,
            loss="squared",
            activation="softplus",
        )
        worlds.append(AuditWorld(shards))
    return worlds


def _with_module(worlds: Sequence[AuditWorld], start: Tensor) -> list[InProcessEngine]:
    """Return engines of worlds that share a new module with these parameters."""
    inputs, hidden, outputs = _LAYERS
    module = nn.Sequential(nn.Linear(inputs, hidden), nn.Softplus(), nn.Linear(hidden, outputs))
    restore_parameters(module.double(), start)
    return [InProcessEngine(replace(world, module=module), make_rules()) for world in worlds]


def draw_audit(path: Path, found: Audit) -> None:
    """Draw the attacker's error rates against the least that the claim allows."""
    thresholds = np.unique(np.concatenate([found.without, found.with_canary]))
    false = [(found.without > t).mean() for t in thresholds]
    missed = [(found.with_canary <= t).mean() for t in thresholds]
    rates = np.linspace(1e-4, 1 - 1e-4, 400)
    mu = 1 / noise_for(found.result.claim, found.result.delta)
    from matplotlib.figure import Figure  # for who draws

    from fedzo.records.plots import save_figure

    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(false, missed, label="the attacker, all runs")
    limit = ndtr(ndtri(1 - rates) - mu)
    axes.plot(rates, limit, linestyle="--", label=f"the least for epsilon = {found.result.claim:g}")
    axes.set(xlabel="he says D' of D", ylabel="he says D of D'")
    axes.legend()
    save_figure(figure, path)


def _experiment(
    strategy: str, num_rounds: int, num_clients: int, settings: Mapping[str, Scalar]
) -> Experiment:
    """Return the resolved settings of the strategy; raises ConfigError where it is not private."""
    entry = strategy_entry(strategy)
    if not has_part(entry.config, PrivacyConfig):
        private = [n for n, e in STRATEGIES.items() if has_part(e.config, PrivacyConfig)]
        raise ConfigError(f"strategy {strategy!r} claims no epsilon; audit {', '.join(private)}")
    for name, value in settings.items():
        if name.partition(".")[0] not in ("strategy", "client") or name in _UNSEEN:
            raise ConfigError(
                f"{name}={value} has no effect on an audit, whose rounds are of a small world of"
                " its own, without a driver; leave it out"
            )
    small: dict[str, Scalar] = {"strategy.restart_period": 2, "client.num_directions": 5}
    local: dict[str, Scalar] = {"strategy.local_lr": 0.001}
    rules: dict[str, dict[str, Scalar]] = {
        "gradient_difference": small,
        "first_order": local,
        "zeroth_order": local,
        "in_place": {"strategy.server_lr": 0.001},
    }
    own = {k: v for k, v in rules.get(entry.rule, {}).items() if k not in entry.preset}
    made = make_experiment(
        "regression",
        strategy,
        num_rounds=num_rounds,
        num_clients=num_clients,
        settings={"strategy.epsilon": 4.0, **own, **settings},
        excused=own.keys() - settings.keys(),
    )
    for name, only in _ONLY.items():
        value = made.settings.get(f"strategy.{name}", only)
        if value != only:
            raise ConfigError(f"strategy.{name}={value} cannot be audited; set it to {only}")
    if made.settings["strategy.epsilon"] == math.inf:
        raise ConfigError("strategy.epsilon=inf claims nothing; give a number")
    return made


_UNSEEN = {f"strategy.{name}" for name in (*field_names(RoundConfig), "report_shortened")} - {
    "strategy.participation"
}
"""What is the driver's, or reported by it."""
_ONLY: Mapping[str, Scalar] = {
    "adjacency": "replace_one",
    "routine": "gd",
    "memory": "stage",
    "noise": "server",
    "aggregator": "mean",
    "secret_sample": False,
    "server_optimizer": "sgd",
    "calibration": "tight",
    "noise_multiplier": 0.0,
    "noise_source": "stream",
    "participation": 1.0,
}
"""What this attacker can follow."""


def _strategy(made: Experiment, more: Mapping[str, Scalar]) -> RoundStrategy[Any]:
    return build_strategy(replace(made, settings={**made.settings, **more}))


def _score(
    noisy: RoundStrategy[Any],
    quiet: RoundStrategy[Any],
    which: int,
    engines: Sequence[Engine],
    start: Tensor,
    plan: RoundPlan,
) -> float:
    """Return the log-likelihood ratio of one run on one of the two data sets."""
    state, total = noisy.init(start, plan.num_clients), 0.0
    for round_index in range(1, plan.num_rounds + 1):
        now = replace(plan, round_index=round_index)
        silent = noisy.silenced(state)
        clean = [quiet.published(_driven(quiet, silent, now, world)) for world in engines]
        state = _driven(noisy, state, now, engines[which])
        told, std = noisy.published(state), state.privacy.noise_std * noisy.stretch(state)
        if std > 0:
            squares = [float((told - expected).square().sum()) for expected in clean]
            total += (squares[0] - squares[1]) / (2 * std * std)
    return total


def _driven(strategy: RoundStrategy[Any], state: Any, plan: RoundPlan, engine: Engine) -> Any:
    """Return the state after a round, every question of which is answered by the engine."""
    return played(strategy.round(state, plan), engine, Moment(0, plan.round_index), plan.seed)

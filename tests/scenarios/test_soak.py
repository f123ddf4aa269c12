"""A thousand rounds with everything going wrong: nothing is lost, nothing counted twice."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from clients import make_rules
from fedzo.runtime.engine_configs import RayConfig
from fedzo.runtime.middleware.faulty import CRASHED, FaultConfig, Faulty
from fedzo.runtime.ray.actors import start_ray
from fedzo.runtime.ray.pool import RayEngine
from scenarios.runs.engines import build_scenario
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import build_strategy
from strategies.core.driver import RunSettings, Snapshot, run_rounds

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]

ROUNDS, CLIENTS = 1000, 10
FAULTS = FaultConfig(drop=0.10, duplicate=0.05, corrupt=0.05, delay=0.03, crash=0.02, reorder=0.5)


def resident_mib() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_thousand_rounds_with_faults_and_crashed_actors() -> None:
    start_ray(RayConfig(cluster_cpus=2))
    settings = {"scenario.dim": 20, "client.num_directions": 4, "client.estimator": "residual"}
    experiment = make_experiment(
        "quadratic", "fedzo", num_rounds=ROUNDS, num_clients=CLIENTS, settings=settings
    )
    scenario = build_scenario(experiment)
    inner = RayEngine(lambda: scenario, make_rules, RayConfig(num_cpus=1.0))
    engine = Faulty(inner, FAULTS, seed=7)
    memory: dict[int, float] = {}

    def watch(snapshot: Snapshot) -> None:
        index = snapshot.record.round_index
        if index in (300, 600):
            ray.kill(inner.actors._actors[0])
        if index % 100 == 0:
            memory[index] = resident_mib()

    try:
        outcome = run_rounds(
            build_strategy(experiment),
            engine,
            scenario.problem(0),
            RunSettings(num_clients=CLIENTS, num_rounds=ROUNDS, seed=1),
            callbacks=[watch],
        )
    finally:
        engine.close()
        ray.shutdown()
    adds_up(outcome.records, engine)
    assert torch.isfinite(outcome.state.x).all()
    assert outcome.records[-1].value < outcome.records[0].value
    assert memory[ROUNDS] < 1.1 * memory[200], memory


def adds_up(records: Any, engine: Faulty) -> None:
    """Every client of every round has answered or failed, and every fault has left its mark."""
    injected = engine.injected
    reasons = Counter(why for record in records for why in record.failures.values())
    assert records[-1].round_index == ROUNDS
    for record in records[1:]:
        assert record.clients == tuple(range(CLIENTS))
        assert record.clients_answered + len(record.failures) == CLIENTS
    assert sum(injected[f] for f in ("well", "crash", "drop", "delay", "duplicate", "corrupt")) == (
        ROUNDS * CLIENTS
    )
    assert reasons[CRASHED] == injected["crash"]
    assert reasons["no answer in time"] == injected["drop"] + injected["delay"]
    rejected = sum(reasons.values()) - reasons[CRASHED] - reasons["no answer in time"]
    assert rejected <= injected["corrupt"], "no answer was rejected that was whole"
    assert rejected >= 0.95 * injected["corrupt"], "a flipped byte may leave a message as it was"
    assert sum(record.duplicates for record in records) == injected["duplicate"]
    under_way = len(engine._under_way)
    assert sum(record.late for record in records) == injected["delay"] - under_way
    asked = ROUNDS * CLIENTS - injected["crash"]
    per_answer = records[-1].queries / asked
    assert per_answer == int(per_answer), "every client that worked was counted once"
    assert sum(sum(record.client_queries) for record in records) == records[-1].queries

"""The record of messages agrees with the history, and says why an answer is missing."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from clients import make_rules
from clients.averaging.zeroth_order import ZerothOrderConfig
from fedzo.objectives.objective import CallableObjective
from fedzo.objectives.problem import OpenProblem
from fedzo.protocol.exchange import Exchange
from fedzo.protocol.questions import Values
from fedzo.runtime.inprocess import InProcessEngine
from fedzo.runtime.local import FunctionEnvironment
from fedzo.runtime.middleware.faulty import FaultConfig, Faulty
from fedzo.runtime.middleware.recording import Recording
from scenarios.runs.experiment import make_experiment
from scenarios.runs.simulate import simulate
from strategies import FedAvg, FedAvgConfig, Outcome, run_rounds
from strategies.core.driver import RunSettings

D, N = 3, 4
X0 = torch.ones(D, dtype=torch.float64)
EVERYTHING = FaultConfig(crash=0.1, drop=0.1, delay=0.1, duplicate=0.1, corrupt=0.1, reorder=0.5)


def make(client: int) -> CallableObjective:
    def value(x) -> float:  # type: ignore[no-untyped-def]
        if client == 2:
            raise OSError("offline")
        return float(((x - 0.1 * client) ** 2).sum())

    return CallableObjective(function=value, dim=D)


def run(path: Path, faults: FaultConfig, **limits: Any) -> Outcome:
    inner = InProcessEngine(FunctionEnvironment(make), make_rules())
    engine = Recording(Faulty(inner, faults, seed=3), path)
    client = ZerothOrderConfig(num_directions=2)
    config = FedAvgConfig(local_steps=2, max_failed_rounds=9, participation=0.7)
    settings = RunSettings(num_clients=N, num_rounds=6, **limits)
    outcome = run_rounds(FedAvg(config, client=client), engine, OpenProblem(initial_x=X0), settings)
    engine.close()
    return outcome


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("faults", [FaultConfig(), EVERYTHING], ids=["well", "faulty"])
@pytest.mark.parametrize("budget", [None, 100])
def test_the_sums_of_the_record_are_the_totals_of_the_history(
    tmp_path: Path, faults: FaultConfig, budget: int | None
) -> None:
    records = run(tmp_path / "m.jsonl", faults, query_budget=budget).records
    written, last = lines(tmp_path / "m.jsonl"), records[-1]
    down = [line for line in written if line["way"] == "down"]
    up = [line for line in written if line["way"] == "up" and "client" in line]
    assert sum(line["floats"] for line in down) == last.floats_down
    assert sum(line["bytes"] for line in down) == last.bytes_down
    assert sum(line["floats"] for line in up) == last.floats_up
    assert sum(line["bytes"] for line in up) == last.bytes_up
    assert sum(line["counts"].get("queries", 0) for line in up) == last.queries
    for outcome, attribute in (("late", "late"), ("duplicate", "duplicates")):
        extra = [line for line in written if "times" in line and line["outcome"] == outcome]
        times = sum(line["times"] for line in extra)
        assert times == sum(getattr(record, attribute) for record in records)


@pytest.mark.more
@pytest.mark.parametrize("name", ["fedzo", "scaffold1", "seedzo"])
def test_each_question_has_one_line_a_way(tmp_path: Path, name: str) -> None:
    settings = {
        "scenario.dim": 4,
        "engine.record": True,
        "strategy.participation": 0.6,
        "faults.drop": 0.2,
        "faults.duplicate": 0.2,
        "faults.delay": 0.1,
    }
    made = make_experiment("quadratic", name, num_rounds=5, num_clients=5, settings=settings)
    result = simulate(made, out=tmp_path)
    written = [line for line in lines(tmp_path / "messages.jsonl") if "client" in line]
    keys = Counter((line["way"], line["exchange"], line["client"]) for line in written)
    assert set(keys.values()) == {1}
    ways = [{key[1:] for key in keys if key[0] == way} for way in ("down", "up")]
    assert ways[0] == ways[1]
    for record in result.records[1:]:
        asked = {key[2] for key in keys if key[1].startswith(f"0.{record.round_index}.")}
        assert asked == set(record.clients)


def test_failures_carry_the_reasons_of_the_history(tmp_path: Path) -> None:
    records = run(tmp_path / "m.jsonl", FaultConfig(crash=0.2, drop=0.2)).records
    found: dict[int, dict[int, str]] = {}
    for line in lines(tmp_path / "m.jsonl"):
        if line["way"] == "up" and line["outcome"] != "answered":
            round_index = int(line["exchange"].split(".")[1])
            found.setdefault(round_index, {})[line["client"]] = line["outcome"]
    assert found == {r.round_index: r.failures for r in records if r.failures}
    reasons = {reason for of in found.values() for reason in of.values()}
    assert reasons == {"OSError: offline", "crashed (injected)", "no answer in time"}


def test_nothing_of_the_contents_is_written(tmp_path: Path) -> None:
    run(tmp_path / "m.jsonl", FaultConfig())
    head = {"at_s", "way", "exchange", "kind", "client", "floats", "bytes"}
    for line in lines(tmp_path / "m.jsonl"):
        assert set(line) == head | (
            {"outcome", "counts", "wait_s"} if line["way"] == "up" else set()
        )


def test_a_second_run_writes_after_the_first(tmp_path: Path) -> None:
    run(tmp_path / "m.jsonl", FaultConfig())
    once = lines(tmp_path / "m.jsonl")
    run(tmp_path / "m.jsonl", FaultConfig())
    twice = lines(tmp_path / "m.jsonl")
    assert len(twice) == 2 * len(once)
    assert twice[: len(once)] == once


def test_recording_changes_no_answer(tmp_path: Path) -> None:
    ask = Exchange(question=Values(x=X0.unsqueeze(0)), client_ids=range(N))
    plain = InProcessEngine(FunctionEnvironment(make), make_rules())
    engine = Recording(plain, tmp_path / "deep" / "m.jsonl")
    [recorded], [bare] = engine.perform([ask], timeout_s=1), plain.perform([ask], timeout_s=1)
    assert torch.equal(recorded.tensors["values"], bare.tensors["values"])
    assert recorded.failures == bare.failures

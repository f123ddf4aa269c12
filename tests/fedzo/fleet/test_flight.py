"""Jobs in flight: laws of staleness, order, budgets, and a state that goes on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from fedzo.fleet.config import FleetConfig
from fedzo.fleet.devices import Fleet
from fedzo.fleet.flight import Flight
from fedzo.protocol.exchange import Exchange, Moment, Replies
from fedzo.protocol.question import Answer, Cost, Question
from fedzo.protocol.wave import Landed, Refill, Wave

PLAIN: dict[str, Any] = {
    "preset": "silo", "query_s": 1.0, "rtt_s": 0.0, "speed_spread": 0.0, "jitter": 0.0,
    "link_spread": 0.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Said(Answer):
    told: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Question[Said]):
    """A question that takes two queries."""

    kind: ClassVar[str] = "train.ask"
    answer: ClassVar[type[Answer]] = Said
    x: Tensor

    def cost(self) -> Cost:
        return Cost(queries=2)


def perform(exchanges: Sequence[Exchange]) -> list[Replies]:
    """Answer with id and round of each client; client 7 fails."""
    return [answered(exchange) for exchange in exchanges]


def answered(exchange: Exchange) -> Replies:
    ids = [client for client in exchange.client_ids if client != 7]
    return Replies(
        client_ids=ids,
        tensors={"told": torch.tensor([[c, exchange.moment.round_index] for c in ids]).double()},
        counts={"queries": dict.fromkeys(exchange.client_ids, 2)},
        failures={7: "it never works"} if 7 in exchange.client_ids else {},
    )


@dataclass
class Server:
    """Waves one after the other, as the driver asks for them."""

    flight: Flight
    in_flight: int
    until: int
    refill: Refill
    num_clients: int
    timeout_s: float = 1e9
    queries: int | None = None
    at_s: float = 0.0
    round_index: int = 0

    def step(self) -> Landed:
        self.round_index += 1
        first = range(100, 100 + self.in_flight)
        wave = Wave(
            question=Ask(x=torch.zeros(1)), until=self.until, refill=self.refill, first=first,
            num_clients=self.num_clients, moment=Moment(0, self.round_index, 0), seed=5,
            at_s=self.at_s, queries=self.queries,
        )  # fmt: skip
        landed, took = self.flight.wave(wave, perform, self.timeout_s)
        self.at_s += took.seconds
        for client, told, age in zip(
            landed.clients, landed.tensors.get("told", []), landed.staleness.tolist(), strict=True
        ):
            assert told.tolist() == [client, self.round_index - age]
        assert landed.oldest <= self.round_index + 1
        return landed


def serving(in_flight: int, until: int, refill: Refill, clients: int, **fleet: Any) -> Server:
    config = FleetConfig(**{**PLAIN, **fleet})
    return Server(Flight(Fleet(config, seed=5)), in_flight, until, refill, clients)


def exponential(tmp_path: Path, clients: int) -> dict[str, Any]:
    path = tmp_path / "devices.csv"
    drawn = np.random.default_rng(0).exponential(1.0, clients) + 1e-6
    lines = [f"{client},{seconds},1e9,1e9" for client, seconds in enumerate(drawn.tolist())]
    path.write_text("\n".join(["client,query_s,down,up", *lines]) + "\n")
    return {"preset": "file", "file": str(path), "query_s": 0.0, "link_spread": -1.0}


LAWS = ["constant", "log-normal jobs", "log-normal devices", "exponential devices"]


def law(name: str, tmp_path: Path, clients: int) -> dict[str, Any]:
    if name == "exponential devices":
        found = exponential(tmp_path, clients)
        return {**found, "speed_spread": 0.6}
    return {
        "constant": {},
        "log-normal jobs": {"jitter": 0.6},
        "log-normal devices": {"speed_spread": 0.6, "jitter": 0.1},
    }[name]


@pytest.mark.more
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("refill", ["arrival", "step"])
def test_the_mean_staleness_is_that_of_the_law(name: str, refill: Refill, tmp_path: Path) -> None:
    at_work, until, clients, waves = 30, 5, 3000, 300
    server = serving(at_work, until, refill, clients, **law(name, tmp_path, clients))
    ages = [age for _ in range(waves) for age in server.step().staleness.tolist()]
    settled = ages[len(ages) // 8 :]
    wanted = (at_work - 1) / until if refill == "arrival" else at_work / until - 1
    assert len(ages) == waves * until
    assert sum(settled) / len(settled) == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize("name", LAWS)
def test_waves_that_wait_for_all_are_synchronous(name: str, tmp_path: Path) -> None:
    server = serving(12, 12, "step", 400, **law(name, tmp_path, 400))
    for number in range(5):
        landed = server.step()
        assert landed.staleness.tolist() == [0] * 12
        assert landed.oldest == number + 2
    assert not server.flight.jobs


def test_equal_times_with_as_many_answers_as_clients_are_half_a_round_old() -> None:
    server = serving(4, 4, "arrival", 50)
    ages = [server.step().staleness.tolist() for _ in range(40)]
    assert all(sorted(one) == [0, 1, 1, 1] for one in ages[1:])


def test_one_at_a_time_is_sequential() -> None:
    server = serving(1, 1, "arrival", 30, speed_spread=0.6)
    ends = []
    for _ in range(20):
        landed = server.step()
        assert landed.staleness.tolist() == [0]
        ends.append(2 * server.flight.fleet.slowness(landed.clients)[0])
    assert server.at_s == pytest.approx(sum(ends), rel=1e-6)


@pytest.mark.more
def test_fast_devices_answer_more_often() -> None:
    server = serving(10, 5, "arrival", 40, speed_spread=1.0)
    came = Counter(c for _ in range(800) for c in server.step().clients)
    speed = 1 / server.flight.fleet.slowness(range(40))
    often = np.asarray([came[c] for c in range(40)], dtype=float)
    others = np.arange(40) != 7
    assert np.corrcoef(np.log(speed[others]), np.log(often[others] + 0.5))[0, 1] > 0.6


def test_lost_and_failed_answers_are_replaced() -> None:
    server = serving(10, 5, "arrival", 40, drop_out=0.3, jitter=0.2)
    server.timeout_s = 20.0
    landed = [server.step() for _ in range(60)]
    assert all(len(one.clients) == 5 for one in landed)
    reasons = {reason for one in landed for reason in one.failures.values()}
    assert reasons == {"no answer in time", "it never works"}
    assert all(7 not in one.clients for one in landed)
    nobody = serving(10, 5, "arrival", 40, drop_out=1.0)
    nobody.timeout_s = 20.0
    found = nobody.step()
    assert not found.clients
    assert found.failures


def test_what_begins_is_never_more_than_the_budget() -> None:
    server = serving(10, 5, "arrival", 40)
    left, rounds = 61, 0
    while True:
        server.queries = left
        landed = server.step()
        left -= sum(replies.total("queries") for _, replies in landed.began)
        rounds += 1
        assert left >= 0
        if not landed.clients:
            break
    assert left == 1
    assert rounds == 7
    assert not server.flight.jobs


@pytest.mark.parametrize("refill", ["arrival", "step"])
def test_a_flight_that_was_saved_goes_on_the_same(refill: Refill) -> None:
    fleet = {"speed_spread": 0.6, "jitter": 0.3, "drop_out": 0.1}
    whole = serving(10, 4, refill, 60, **fleet)
    whole.timeout_s = 30.0
    for _ in range(9):
        whole.step()
    state = whole.flight.pending()
    again = serving(10, 4, refill, 60, **fleet)
    again.timeout_s, again.at_s, again.round_index = 30.0, whole.at_s, whole.round_index
    again.flight.restore({name: tensor.clone() for name, tensor in state.items()})
    for _ in range(12):
        one, other = whole.step(), again.step()
        assert one.clients == other.clients
        assert one.failures == other.failures
        assert torch.equal(one.tensors["told"], other.tensors["told"])
        assert whole.at_s == again.at_s
    assert serving(3, 1, "arrival", 9).flight.pending() == {}


def test_only_who_can_be_reached_is_sent_off() -> None:
    server = serving(20, 5, "arrival", 400, online=0.4)
    alone = serving(3, 1, "arrival", 103, online=0.002)
    alone.step()
    assert alone.at_s > 600
    for _ in range(20):
        before = server.at_s
        landed = server.step()
        for exchange, _ in landed.began:
            new = [c for c in exchange.client_ids if not 100 <= c < 120]
            spells = {int(t // 600) for t in (before, server.at_s)}
            here = [server.flight.fleet.online(new, 600.0 * spell) for spell in spells]
            assert np.logical_or.reduce(here).all()

"""An endpoint that has died is left alone for a while, and asked again when it is back."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import fedzo.objectives.circuit
from fedzo.config import Scalar
from fedzo.errors import ConfigError, FedzoWarning, ObjectiveError
from fedzo.objectives.circuit import LONGEST_REST_S, Circuit, NotAsked, rest_of
from fedzo.objectives.objective import CallableObjective, Objective
from fedzo.objectives.transport import Transport
from fedzo.objectives.tries import Final
from scenarios.runs.simulate import federate
from strategies.core.driver import Snapshot


class Clock:
    """Monotonic time that passes when a test says so."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(fedzo.objectives.circuit, "time", clock)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FedzoWarning)
        yield clock


class Line(Transport):
    """Another end that answers or fails as a test says, and counts what it is sent."""

    sent: int
    well: bool

    def answer(self, question: bytes, limit: int) -> bytes:
        object.__setattr__(self, "sent", self.sent + 1)
        if not self.well:
            raise OSError("nobody there")
        return b"7"

    def name(self) -> str:
        return "the line"


def line(**settings: Any) -> Line:
    made = Line(**{"retries": 1, "pause_s": 0.0, **settings})
    object.__setattr__(made, "sent", 0)
    object.__setattr__(made, "well", False)
    return made


def ask(made: Line) -> str:
    """Return what became of a question: `answered`, `failed` or `unasked`."""
    try:
        assert made.ask({}, int) == 7
    except NotAsked:
        return "unasked"
    except ObjectiveError:
        return "failed"
    return "answered"


class Refusing(Line):
    """Fails, refuses twice, and so on."""

    def answer(self, question: bytes, limit: int) -> bytes:
        object.__setattr__(self, "sent", self.sent + 1)
        if self.sent % 3 == 1:
            raise OSError("nobody there")
        raise Final("no such thing")


def test_a_refusal_is_an_answer_of_somebody_who_is_alive(clock: Clock) -> None:
    made = Refusing(retries=0, pause_s=0.0, trip_after=2, rest_s=10.0)
    object.__setattr__(made, "sent", 0)
    assert [ask(made) for _ in range(7)] == ["failed"] * 7


def test_it_opens_after_failures_in_a_row_and_closes_with_an_answer(clock: Clock) -> None:
    made = line(trip_after=3, rest_s=10.0)
    assert [ask(made) for _ in range(5)] == ["failed"] * 3 + ["unasked"] * 2
    assert made.sent == 6, "two tries a question, none while it rests"
    clock.now += 9.9
    assert ask(made) == "unasked"
    clock.now += 0.2
    assert (ask(made), made.sent) == ("failed", 7), "on trial there is one try"
    clock.now += 19.9
    assert ask(made) == "unasked", "it rests twice as long"
    clock.now += 0.2
    object.__setattr__(made, "well", True)
    assert [ask(made) for _ in range(2)] == ["answered"] * 2
    object.__setattr__(made, "well", False)
    assert [ask(made) for _ in range(4)] == ["failed"] * 3 + ["unasked"]
    clock.now += 10.1
    assert ask(made) == "failed", "rests are short again"


def test_answers_between_failures_keep_it_closed(clock: Clock) -> None:
    made = line(trip_after=2)
    for _ in range(6):
        object.__setattr__(made, "well", not made.well)
        assert ask(made) != "unasked"


def test_it_never_opens_where_nobody_wants_it(clock: Clock) -> None:
    made = line(trip_after=0)
    assert {ask(made) for _ in range(9)} == {"failed"}
    assert made.sent == 18


def test_rests_are_bounded(clock: Clock) -> None:
    circuit = Circuit()
    for _ in range(200):
        circuit.note_failure("it", 1, 10.0)
        assert circuit.until_s - clock.now <= LONGEST_REST_S
    assert circuit.until_s - clock.now == LONGEST_REST_S


def test_it_is_said_once() -> None:
    made = line(trip_after=2, rest_s=0.0)
    with pytest.warns(FedzoWarning, match=r"failed 2 questions in a row.*trip_after=2") as told:
        assert {ask(made) for _ in range(6)} == {"failed"}
    assert len(told) == 1


@pytest.mark.parametrize("settings", [{"trip_after": -1}, {"trip_after": 1.5}, {"rest_s": -1.0}])
def test_bad_settings_are_refused(settings: dict[str, Any], unchecked: None) -> None:
    with pytest.raises(ConfigError, match="must be"):
        line(**settings)


class Dead:
    """A client whose box is at the end of a line where nobody is."""

    dim, lower, upper = 3, -torch.inf, torch.inf

    def __init__(self, made: Line) -> None:
        self.made = made

    def value(self, x: Tensor) -> Tensor:
        return x.square().sum(-1) * self.made.ask({}, int)


def test_a_dead_client_costs_its_place_and_not_a_time_out_a_round(clock: Clock) -> None:
    made = line(trip_after=3)
    alive = CallableObjective(function=lambda x: float((x**2).sum()), dim=3)
    ends: list[Objective] = [alive, Dead(made), alive]
    result = federate(
        ends.__getitem__,
        num_clients=3,
        num_rounds=9,
        initial_x=[1.0, 1.0, 1.0],
        settings={"strategy.min_judges": 2},
    )
    assert made.sent == 6
    assert result.records[-1].value is not None
    assert result.records[-1].value < 3.0
    assert "is not asked for another" in result.records[-1].failures[1]
    assert (
        dict(zip(result.records[-1].clients, result.records[-1].client_queries, strict=True))[1]
        == 0
    )


@pytest.mark.parametrize("strategy", ["fedzo", "fedbuff_zo"])
def test_a_run_waits_while_all_are_left_alone(
    strategy: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its failed rounds are not used up meanwhile: the line is well again after the rest."""
    made = line(trip_after=2, rest_s=10.0)
    fleet: dict[str, Scalar] = {"fleet.preset": "silo", "fleet.query_s": 1.0}
    fleet = fleet if strategy == "fedbuff_zo" else {}
    slept = list[float]()

    def sleep(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
            clock.now += seconds
            object.__setattr__(made, "well", True)

    object.__setattr__(made, "well", True)
    monkeypatch.setattr("strategies.core.driver.time.sleep", sleep)

    def start(snapshot: Snapshot) -> None:
        if snapshot.record.round_index == 0:
            object.__setattr__(made, "well", False)

    result = federate(
        lambda client: Dead(made),
        num_clients=1,
        num_rounds=6,
        strategy=strategy,
        initial_x=[1.0, 1.0, 1.0],
        settings={"strategy.max_failed_rounds": 3, **fleet},
        callbacks=[start],
    )
    assert len(slept) == 1
    assert 0 < slept[0] <= 10.0
    assert result.final_value is not None
    assert result.final_value < 21.0


@pytest.mark.parametrize("rest", ["100000", "few", "inf", "nan", "-1", "1e999", "301"])
def test_a_client_cannot_make_the_server_wait(rest: str) -> None:
    assert rest_of(f"it is not asked for another {rest} s") == 0


def test_a_rest_is_what_a_circuit_says() -> None:
    assert rest_of("x has failed 3 questions in a row and is not asked for another 12.5 s") == 12.5

"""Whatever a client's code raises costs that client; what is meant for all ends all."""

import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from fedzo.errors import ConfigError
from fedzo.failure import failure_of
from fedzo.objectives.objective import CallableObjective, Objective, TorchObjective
from scenarios import federate


class Rude(BaseException):
    """Somebody's own, and no Exception."""


def leave() -> None:
    raise SystemExit(3)


def recurse() -> None:
    recurse()


def close() -> None:
    raise GeneratorExit("closed")


def rude() -> None:
    raise Rude("no")


def starve() -> None:
    raise MemoryError("no room")


WAYS: dict[str, Callable[[], None]] = {
    "SystemExit: the code called exit(3)": leave,
    "RecursionError": recurse,
    "GeneratorExit: closed": close,
    "Rude: no": rude,
    "MemoryError: no room": starve,
}


def makers(fail: Callable[[], None]) -> dict[str, Callable[[int], Objective]]:
    def numpy(client: int) -> Objective:
        def value(x: np.ndarray) -> float:
            if client == 1:
                fail()
            return float(((x - 1) ** 2).sum())

        return CallableObjective(function=value, dim=3)

    def tensors(client: int) -> Objective:
        def value(x: torch.Tensor) -> torch.Tensor:
            if client == 1:
                fail()
            return ((x - 1) ** 2).sum(-1)

        return TorchObjective(function=value, dim=3)

    return {"callable": numpy, "torch": tensors}


@pytest.mark.parametrize("kind", ["callable", "torch"])
@pytest.mark.parametrize("reason", WAYS)
def test_a_client_whose_code_gives_up_in_any_way_fails_alone(reason: str, kind: str) -> None:
    make = makers(WAYS[reason])[kind]
    result = federate(make, num_clients=3, num_rounds=1, settings={"strategy.min_answers": 1})
    failures = dict(result.records[-1].failures)
    assert list(failures) == [1]
    assert reason in failures[1]


@pytest.mark.parametrize("client", [0, 1])
def test_an_objective_that_exits_while_it_is_made_ends_in_a_sentence(client: int) -> None:
    good = makers(leave)["callable"]

    def make(number: int) -> Objective:
        if number == client:
            leave()
        return good(0)

    with pytest.raises(ConfigError, match=rf"called exit\(3\), for client {client}"):
        federate(make, num_clients=2, num_rounds=1)


def test_ctrl_c_in_a_client_is_for_all() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(makers(interrupt)["torch"], num_clients=3, num_rounds=1)


@pytest.fixture
def term_exits() -> Iterator[None]:
    def handler(number: int, frame: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_that_comes_while_a_client_computes_is_for_all(term_exits: None) -> None:
    def hit() -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        federate(makers(hit)["callable"], num_clients=3, num_rounds=1)


def test_what_a_user_stops_in_a_callback_is_stopped() -> None:
    def stop(snapshot: object) -> None:
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        federate(makers(leave)["torch"], num_clients=1, num_rounds=1, callbacks=[stop])


def test_the_reason_of_an_ordinary_error_is_its_name_and_its_text() -> None:
    assert failure_of(ValueError("out of ink")) == "ValueError: out of ink"
    assert failure_of(SystemExit("bye")) == "SystemExit: the code called exit('bye')"

"""Processes that train together take the steps of one: by places bit for bit, by data nearly."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from module_nets import ALL, INPUTS, TARGETS, loss_of, net, numbers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedzo.errors import ConfigError, ObjectiveError
from fedzo.finetuning.methods import learned
from fedzo.finetuning.parallel import Parallel, TorchGroup
from fedzo.finetuning.zeroth_order import ZerothOrder

pytestmark = pytest.mark.filterwarnings("ignore:.*share the places of a step")
BY_NAME = [pytest.param(method, id=name) for name, method in ALL.items()]


class Threads:
    """A group of threads."""

    def __init__(self, rank: int, size: int, table: list[list[float]], barrier: threading.Barrier):
        self.rank, self.size, self._table, self._barrier = rank, size, table, barrier

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        self._table[self.rank] = list(numbers)
        self._barrier.wait(20)
        found = [list(row) for row in self._table]
        self._barrier.wait(20)
        return found


LOCK = threading.Lock()
"""torch's seed, in `net`, and its forward differentiation are one for all threads."""


class Shared(Parallel):
    """Threads that ask one after another."""

    def values(  # type: ignore[no-untyped-def]
        self, count: int, ask: Callable[[Sequence[int]], Sequence[float]], *, width: int = 1
    ):
        def by_turns(mine: Sequence[int]) -> Sequence[float]:
            with LOCK:
                return ask(mine)

        return super().values(count, by_turns, width=width)


def together(size: int, work: Callable[[Threads], object]) -> list[object]:
    table: list[list[float]] = [[] for _ in range(size)]
    barrier = threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda r: work(Threads(r, size, table, barrier)), range(size)))


def fresh() -> nn.Module:
    with LOCK:
        return net()


def train(method, parallel: Parallel | None = None, steps: int = 3, **asked):  # type: ignore[no-untyped-def]
    module = fresh()
    optimizer = ZerothOrder(module, 0.02, method=method, parallel=parallel, **asked)
    shard = slice(None) if parallel is None else slice(parallel.shard, None, parallel.data)

    def closure() -> Tensor:
        return cross_entropy(module(INPUTS[shard]), TARGETS[shard])

    for _ in range(steps):
        optimizer.step(closure, full=closure)
    return module, optimizer


@pytest.mark.more
@pytest.mark.parametrize("method", BY_NAME)
def test_places_are_shared_to_the_same_bits(method) -> None:  # type: ignore[no-untyped-def]
    alone, optimizer = train(method)
    for module, other in together(3, lambda group: train(method, Shared(group))):  # type: ignore[misc]
        assert torch.equal(numbers(module), numbers(alone))
        assert other.log.told == optimizer.log.told
        assert other.spent == optimizer.spent


@pytest.mark.parametrize("name", ["mezo", "fzoo", "forward_gradient", "mezo_svrg"])
def test_a_batch_is_shared_to_rounding(name: str) -> None:
    alone, _ = train(ALL[name])
    found = together(4, lambda group: train(ALL[name], Shared(group, data=2))[0])
    for module in found:
        assert torch.equal(numbers(module), numbers(found[0]))  # type: ignore[arg-type]
        torch.testing.assert_close(numbers(module), numbers(alone), atol=2e-4, rtol=0)  # type: ignore[arg-type]


def test_each_asks_its_own_and_sends_a_number_a_place() -> None:
    """Nine places of a step for two: five and four, and one number says that it went well."""

    def work(group: Threads) -> tuple[int, int, int]:
        module, calls, parallel = fresh(), [], Shared(group)

        def closure() -> Tensor:
            calls.append(1)
            return loss_of(module)()

        optimizer = ZerothOrder(
            module, 0.02, method="fzoo", settings={"num_directions": 8}, parallel=parallel
        )
        begun = parallel.sent
        optimizer.step(closure)
        return len(calls), parallel.sent - begun, optimizer.spent.forwards

    assert together(2, work) == [(5, 6, 9), (4, 6, 9)]


def test_stacked_places_are_shared_too() -> None:
    one, _ = train("zo_sgd", settings={"num_directions": 4}, stacked=True)

    def work(group: Threads) -> nn.Module:
        settings = {"num_directions": 4}
        return train("zo_sgd", Shared(group), settings=settings, stacked=True)[0]

    for module in together(2, work):
        torch.testing.assert_close(numbers(module), numbers(one), atol=2e-4, rtol=0)  # type: ignore[arg-type]


def test_an_error_of_one_ends_all_before_anything_moves() -> None:
    def work(group: Threads) -> tuple[str, bool]:
        module = fresh()
        optimizer = ZerothOrder(module, 0.02, parallel=Shared(group))

        def closure() -> Tensor:
            if group.rank == 1:
                raise KeyError("no such batch")
            return loss_of(module)()

        with pytest.raises((KeyError, ObjectiveError)) as caught:
            optimizer.step(closure)
        return str(caught.value), torch.equal(numbers(module), numbers(fresh()))

    told = together(2, work)
    assert told == [("process 1 of 2 could not ask the loss", True), ("'no such batch'", True)]


def test_other_starts_are_refused() -> None:
    def work(group: Threads) -> None:
        module = fresh()
        with torch.no_grad():
            next(module.parameters()).view(-1)[0] += group.rank
        with pytest.raises(ConfigError, match="process 1 begins with other parameters"):
            ZerothOrder(module, 0.02, parallel=Shared(group))

    together(2, work)


@pytest.mark.parametrize("name", ["seed", "lr", "settings"])
def test_other_arguments_are_refused(name: str) -> None:
    def work(group: Threads) -> None:
        lr, seed = 0.02 + 0.01 * group.rank * (name == "lr"), group.rank * (name == "seed")
        settings = {"num_directions": 1 + group.rank * (name == "settings")}
        with pytest.raises(ConfigError, match="same arguments in every process"):
            ZerothOrder(fresh(), lr, seed=seed, settings=settings, parallel=Shared(group))

    together(2, work)


def test_passes_on_all_examples_are_known_to_a_process_that_asked_for_none() -> None:
    method = learned.MeZOSVRG(num_directions=1)
    spent = together(3, lambda group: train(method, Shared(group))[1].spent)
    assert [one.on_all for one in spent] == [2, 2, 2]  # type: ignore[attr-defined]


def test_processes_that_do_not_fit_are_refused() -> None:
    group = Threads(0, 3, [], threading.Barrier(3))
    with pytest.raises(ConfigError, match="data=2 must be a divisor of 3 processes"):
        Parallel(group, data=2)
    with pytest.raises(ConfigError, match="torchrun"):
        TorchGroup()


def _process(rank: int, store: str, out: str) -> None:
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        module, _ = train("mezo", Parallel(TorchGroup()))
    finally:
        distributed.destroy_process_group()
    torch.save(numbers(module), f"{out}.{rank}")


@pytest.mark.slow
def test_processes_of_torch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(  # type: ignore[no-untyped-call]
        _process, (str(tmp_path / "store"), str(tmp_path / "x")), nprocs=2
    )
    alone, _ = train("mezo")
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"x.{rank}"), numbers(alone))

"""Operations that read moved copies: of views, of several clients at once, and of nothing else."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedzo.errors import ObjectiveError
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.keys import Key
from fedzo.estimation.place import add_terms_
from fedzo.estimation.shifted_reads import ShiftedReads, ask_moved
from fedzo.objectives.cohort import cohort_of
from fedzo.objectives.objective import ModuleObjective, TorchObjective
from fedzo.objectives.oracle import Oracle

KEY = Key(seed=1, parts=("u",), law="gaussian")


def test_what_is_not_read_by_torch_is_said() -> None:
    x = torch.zeros(3, dtype=torch.float64)
    by_address = (ctypes.c_double * 3).from_address(x.data_ptr())
    place = InPlace([x], lambda: torch.tensor(sum(by_address)))
    place.shift_(KEY, 0.1)
    with pytest.raises(ObjectiveError, match="no operation of torch has read"):
        place.loss()


@pytest.mark.parametrize(
    "taken",
    [
        lambda p: p.detach().numpy(),
        lambda p: p.detach().flatten().numpy(),
        lambda p: np.array(p.tolist()),
        lambda p: np.asarray(p.data),
        lambda p: np.from_dlpack(p.detach()[:]),
        lambda p: np.array([v.item() for v in p]),
        lambda p: p.detach().numpy(force=True),
    ],
)
def test_numbers_that_leave_torch_are_moved_too(taken: Callable[[Tensor], np.ndarray]) -> None:
    """Beside a forward pass too, where a wrong slope would not be seen; other tensors stay."""
    weight, other = nn.Parameter(torch.rand(3)), torch.zeros(3)

    def ask() -> Tensor:
        other.numpy()[:] = 5.0
        return torch.as_tensor(taken(weight).sum()) + weight.sum()

    with torch.no_grad():
        moved = weight + KEY.draw(0, 3)
        told = ask_moved(ask, ([weight], [(KEY, 1.0)]))
    assert float(told) == pytest.approx(2 * float(moved.sum()))
    assert torch.equal(other, torch.full((3,), 5.0)), "written through, as in torch"


def test_a_module_that_writes_its_parameters_is_refused() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            self.w.add_(1.0)
            return x * self.w

    loss = nn.functional.mse_loss
    place = InPlace.of_module(ModuleObjective(Writes(), loss, torch.ones(2, 3), torch.ones(2, 3)))
    place.shift_(KEY, 0.1)
    with pytest.raises(ObjectiveError, match="writes into the parameters"):
        place.loss()


def test_views_are_read_where_they_are_used() -> None:
    """A reshape that copies reads; one that does not is a view; both see the shift, once."""
    x = torch.zeros(2, 3)
    u = KEY.draw(0, 6).reshape(2, 3)
    made_before = x[1]
    with torch.no_grad(), ShiftedReads(([x], [(KEY, 1.0)])):
        copied, viewed, sliced = x.T.reshape(6) + 0, x.view(6) + 0, made_before + 0
        inside = x.expand(2, 2, 3) + 0
        product = torch.ones(1, 2) @ x
    assert torch.equal(copied, u.T.reshape(6))
    assert torch.equal(viewed, u.reshape(6))
    assert torch.equal(sliced, u[1])
    assert torch.equal(inside, u.expand(2, 2, 3))
    assert torch.equal(product, torch.ones(1, 2) @ u)
    with torch.inference_mode(), ShiftedReads(([x], [(KEY, 1.0)])):
        assert torch.equal(x.T.reshape(6) + 0, u.T.reshape(6))
        assert torch.equal(x.to(torch.float64), u.double())


def test_what_shares_memory_with_x() -> None:
    """Neighbors in the same memory are left alone; two tensors of x cannot be read as one."""
    memory = torch.zeros(9)
    place, neighbor = [memory[:3], memory[3:6]], memory[6:]
    u = KEY.draw(0, 6)
    with torch.no_grad(), ShiftedReads((place, [(KEY, 1.0)])):
        assert torch.equal(neighbor + 0, torch.zeros(3))
        assert torch.equal(place[1] + 0, u[3:])
        for across in (memory[2:4], memory[5:7], memory[:3].view(torch.int32)):
            with pytest.raises(ObjectiveError, match="share memory"):
                across + 0


def test_clients_of_a_cohort_are_asked_at_once_each_along_its_own_direction() -> None:
    """Through the oracle, which counts them; a client that fails does so alone."""

    def fails(z: Tensor) -> Tensor:
        raise RuntimeError("cannot")

    sums = TorchObjective(function=lambda z: z.sum(-1), dim=4)
    objectives = [sums, TorchObjective(function=fails, dim=4), sums]
    oracle = Oracle(cohort_of(objectives), query_budget=5)
    x, keys = torch.arange(12.0).reshape(3, 4), [KEY, KEY.at(1), KEY.at(2)]
    moves = [([row], [(key, 0.5)]) for row, key in zip(x, keys, strict=True)]
    values = ask_moved(lambda: oracle.value(x.unsqueeze(1)), *moves)[:, 0]
    expected = x.sum(1) + 0.5 * torch.stack([key.draw(0, 4) for key in keys]).sum(1)
    assert values.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(values[::2], expected[::2].double(), rtol=1e-6, atol=0)
    assert oracle.counts()["queries"] == [1, 1, 1]
    assert oracle.remaining == 4


@pytest.mark.slow
def test_a_compiled_module_is_asked_eagerly() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    add_terms_(list(net.parameters()), [(KEY.at(1), 1.0)])
    values = []
    for module in (net, torch.compile(net, backend="eager")):
        objective = ModuleObjective(
            module, nn.functional.cross_entropy, torch.ones(2, 4), torch.tensor([0, 1])
        )
        place = InPlace.of_module(objective)
        values.append(place.loss())
        place.shift_(KEY, 0.1)
        values.append(place.loss())
    assert values[:2] == values[2:]
    assert values[0] != values[1]

"""Local steps of equal modules as one program: here as Python runs it, for types are checked."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.averaging.compiled import CompiledLoop
from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective, cohort_gradient, cohort_of
from fedzo.objectives.modules import ModuleObjective, flatten_parameters
from fedzo.objectives.traced_modules import TracedModules


class Tied(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
        self.two.weight = self.one.weight
        self.register_buffer("shift", torch.zeros(width))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(inputs)) + self.shift)  # type: ignore[no-any-return]


def client(number: int, *, examples: int = 6, module: nn.Module | None = None) -> ModuleObjective:
    drawn = torch.Generator().manual_seed(number)
    net = module or Tied()
    if isinstance(net, Tied):
        net.shift.fill_(float(number))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=drawn))
    inputs = torch.randn(examples, 4, generator=drawn)
    return ModuleObjective(net, functional.mse_loss, inputs, inputs.flip(0))


def starts(own: Sequence[ModuleObjective]) -> Tensor:
    return torch.stack([flatten_parameters(each.module) for each in own])


def two_steps(cohort: CohortObjective, x: Tensor, batches: Tensor | None, rate: float) -> Tensor:
    """Return the moves of two steps: what is compiled."""
    start = x
    for step in range(2):
        part = cohort if batches is None else cohort.minibatch(batches[:, step])  # type: ignore[attr-defined]
        x = x - rate * cohort_gradient(part, x)
    return x - start


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[TracedModules]:
    """Return the cohorts that a compiled loop is called with; nothing is compiled."""
    kept: list[TracedModules] = []

    def as_it_is(loop: Callable[..., Tensor], **_: bool) -> Callable[..., Tensor]:
        def keep(cohort: TracedModules, *rest: object) -> Tensor:
            kept.append(cohort)
            return loop(cohort, *rest)

        return keep

    monkeypatch.setattr(torch, "compile", as_it_is)
    return kept


@pytest.mark.parametrize("batched", [False, True])
def test_moves_are_those_of_the_cohort(batched: bool, seen: list[TracedModules]) -> None:
    own = [client(i) for i in range(3)]
    batches = torch.tensor([[[0, 3], [5, 1]], [[2, 2], [4, 0]], [[1, 5], [3, 3]]])
    given = batches if batched else None
    found = CompiledLoop(two_steps)(cohort_of(own), starts(own), given, 0.1)
    expected = two_steps(cohort_of(own), starts(own), given, 0.1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert seen[0].inputs.shape == (3, 4 if batched else 6, 4), "no more than is used"


def test_smaller_cohorts_are_filled_up_and_clients_may_differ_in_examples(
    seen: list[TracedModules],
) -> None:
    own = [client(i, examples=5 + i) for i in range(4)]
    loop = CompiledLoop(two_steps)
    batches = torch.tensor([[[0, 3], [2, 1]]] * 4)
    whole = loop(cohort_of(own), starts(own), batches, 0.1)
    for some in ([2], [3, 1], [0, 1, 2]):
        part = [own[i] for i in some]
        found = loop(cohort_of(part), starts(part), batches[some], 0.1)
        torch.testing.assert_close(found, whole[some], rtol=1e-5, atol=1e-6)
    assert {len(cohort.inputs) for cohort in seen} == {4}
    assert len({id(cohort.loss) for cohort in seen}) == 1, "else torch compiles anew"


def test_what_cannot_be_one_program_is_told(seen: list[TracedModules]) -> None:
    loop = CompiledLoop(two_steps)
    frozen = Tied()
    frozen.one.bias.requires_grad_(False)
    stubborn = Tied()
    stubborn.lock = open(__file__)  # noqa: SIM115
    for own, said in (
        (
            [client(0), client(1, module=nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(2)))],
            "differ in nothing but their tensors",
        ),
        ([client(0, module=frozen)], "without hooks or frozen parameters"),
        ([client(0), client(1, examples=5)], "as many examples of every client"),
        ([client(0, module=stubborn)], "modules that can be copied"),
    ):
        x = torch.zeros(len(own), own[0].dim)
        with pytest.raises(ConfigError, match=said):
            loop(cohort_of(own), x, None, 0.1)
    stubborn.lock.close()
    assert not seen


def test_the_users_modules_stay_as_they_are(seen: list[TracedModules]) -> None:
    own = [client(i, module=Tied().train()) for i in range(2)]
    before = starts(own)
    CompiledLoop(two_steps)(cohort_of(own), before + 1, None, 0.1)
    assert torch.equal(starts(own), before)
    assert all(each.module.training for each in own)

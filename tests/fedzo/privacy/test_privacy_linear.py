"""Modules of linear layers: the closed form against mapped gradients and opacus; refusals."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedzo.objectives.objective import ModuleObjective, flatten_parameters
from fedzo.privacy import linear
from fedzo.privacy.clipping import clip_rows
from fedzo.privacy.layers import squared_norms
from fedzo.privacy.linear import sum_of_linear
from fedzo.randomness import stream

ROOMY = 1 << 20


def objective_of(net: nn.Module, *shape: int, outputs: int = 3, records: int = 7) -> Any:
    """Return the module's losses on random records, and two points near each other."""
    random = stream(7, "linear", records, *shape)
    net = net.double()
    dim = len(flatten_parameters(net))
    x = torch.from_numpy(random.standard_normal(dim))
    own = ModuleObjective(
        net,
        nn.functional.cross_entropy,
        torch.from_numpy(random.standard_normal((records, *shape))),
        torch.from_numpy(random.integers(0, outputs, records)),
    )
    return own, x, x + 0.01 * torch.from_numpy(random.standard_normal(dim))


def mapped(
    own: ModuleObjective, x: Tensor, previous: Tensor | None, clip: float
) -> tuple[Tensor, Tensor]:
    each = torch.func.vmap(torch.func.grad(own.record_loss), in_dims=(None, 0))
    everyone = torch.arange(own.num_examples)
    gradients = each(x, everyone)
    found = clip_rows(gradients if previous is None else gradients - each(previous, everyone), clip)
    return found.sums.sum(dim=0), found.shortened.sum()


def agree(own: ModuleObjective, x: Tensor, previous: Tensor | None, clip: float) -> None:
    for max_floats in (ROOMY, 50):
        found = sum_of_linear(own, x, previous, clip, max_floats)
        assert found is not None
        expected = mapped(own, x, previous, clip)
        torch.testing.assert_close(found[0], expected[0])
        assert float(found[1]) == float(expected[1])


@given(
    widths=st.lists(st.integers(1, 6), max_size=2),
    biases=st.lists(st.booleans(), min_size=3, max_size=3),
    activation=st.sampled_from([nn.ReLU(), nn.ReLU(inplace=True), nn.Tanh(), nn.Softplus()]),
    nested=st.booleans(),
    changes=st.booleans(),
    clip=st.floats(0.01, 10),
)
def test_the_closed_form_is_the_sum_of_clipped_gradients(
    widths: list[int],
    biases: list[bool],
    activation: nn.Module,
    nested: bool,
    changes: bool,
    clip: float,
) -> None:
    sizes = [8, *widths, 3]
    parts: list[nn.Module] = [nn.Flatten()]
    for ins, outs, bias in zip(sizes, sizes[1:], biases, strict=False):
        parts += [nn.Linear(ins, outs, bias=bias), activation, nn.Dropout(0.5)]
    net = nn.Sequential(nn.Sequential(*parts[:2]), *parts[2:]) if nested else nn.Sequential(*parts)
    own, x, previous = objective_of(net, 4, 2)
    agree(own, x, previous if changes else None, clip)


def tokens(rows: int = 3) -> nn.Sequential:
    """Return a network whose first layers see each row of a record."""
    return nn.Sequential(
        nn.Linear(8, 9),
        nn.Tanh(),
        nn.Linear(9, 8, bias=False),
        nn.Flatten(),
        nn.Linear(8 * rows, 3),
    )


def test_sequences_take_their_norms_from_opacus() -> None:
    pytest.importorskip("opacus")
    own, x, previous = objective_of(tokens(), 3, 8)
    for clip in (0.1, 3.0, 100.0):
        agree(own, x, None, clip)
    assert sum_of_linear(own, x, previous, 1.0, ROOMY) is None
    long, at, _ = objective_of(tokens(rows=10), 10, 8)
    assert sum_of_linear(long, at, None, 1.0, ROOMY) is None


def test_without_opacus_sequences_are_left_to_mapped_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear, "knows_sequences", lambda: False)
    own, x, _ = objective_of(tokens(), 3, 8)
    assert sum_of_linear(own, x, None, 1.0, ROOMY) is None
    plain, at, _ = objective_of(nn.Sequential(nn.Linear(5, 3)), 5)
    agree(plain, at, None, 1.0)


def test_norms_are_those_of_opacus() -> None:
    """An independent implementation, on the module itself, by its hooks."""
    opacus = pytest.importorskip("opacus.grad_sample")
    net = nn.Sequential(nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 3, bias=False))
    own, x, _ = objective_of(net, 5)
    parts = linear._parts(net)
    assert parts is not None
    ours = squared_norms(linear._pass(parts, own, x, slice(None))).sqrt()[0]
    nn.utils.vector_to_parameters(x, net.parameters())
    hooked = opacus.GradSampleModuleFastGradientClipping(
        net, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="sum"
    )
    losses = nn.functional.cross_entropy(hooked(own.inputs), own.targets, reduction="sum")
    losses.backward()
    torch.testing.assert_close(hooked.get_norm_sample(), ours)


class Own(nn.Linear):
    """A layer that mixes records."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(dim=0))


def tied() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    return net


def hooked() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 3))
    net[0].register_forward_hook(lambda module, given, told: told - told.mean(dim=0))
    return net


again = nn.Linear(3, 3)


@pytest.mark.parametrize(
    "net",
    [
        nn.Linear(3, 3),
        nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
        nn.Sequential(nn.Softmax(dim=0), nn.Linear(3, 3)),
        nn.Sequential(nn.Flatten(0), nn.Linear(21, 3)),
        nn.Sequential(nn.Conv1d(3, 3, 1), nn.Flatten(), nn.Linear(3, 3)),
        nn.Sequential(Own(3, 3)),
        nn.Sequential(again, again),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))),
        nn.Sequential(nn.Linear(3, 3), nn.PReLU()),
        tied(),
        hooked(),
    ],
)
def test_modules_that_may_mix_records_or_hide_parameters_are_not_taken(net: nn.Module) -> None:
    own, x, _ = objective_of(net, 3)
    assert sum_of_linear(own, x, None, 1.0, ROOMY) is None


def test_records_without_an_axis_of_inputs_are_not_taken() -> None:
    """A layer would take all records for the inputs of one."""
    own, x, _ = objective_of(nn.Sequential(nn.Linear(7, 3)))
    assert sum_of_linear(own, x, None, 1.0, ROOMY) is None

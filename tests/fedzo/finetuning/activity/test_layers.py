"""Gradients of layers against autograd, for any derivative at their outputs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedzo.errors import ConfigError
from fedzo.finetuning.activity.layers import (
    parameter_gradients,
    require_one_input,
    require_supported,
    token_axes,
)
from fedzo.randomness import stream


def normals(*shape: int) -> Tensor:
    return torch.from_numpy(stream(0, "layers", *shape).standard_normal(shape))


def numbers(*shape: int) -> Tensor:
    return torch.from_numpy(stream(0, "tokens").integers(0, 7, shape))


class PaddedBefore(nn.Conv2d):
    """A convolution with more padding at the right and below, as EfficientNet's."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(inputs, (0, 1, 0, 1)))


class Scaled(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return 3 * super().forward(inputs)


CASES: list[tuple[Callable[[], nn.Module], Tensor]] = [
    (lambda: nn.Linear(4, 3), normals(5, 4)),
    (lambda: nn.Linear(4, 3), normals(5, 6, 4)),
    (lambda: nn.Linear(4, 3, bias=False), normals(5, 2, 3, 4)),
    (lambda: nn.Conv2d(4, 6, 3), normals(2, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2), normals(2, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False), normals(2, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 6, (4, 3), padding="same"), normals(2, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 6, 3, padding="valid"), normals(2, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), normals(2, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 6, 3, padding="same", padding_mode="circular"), normals(2, 4, 7, 8)),
    (lambda: nn.Conv1d(4, 6, 3, stride=2), normals(2, 4, 9)),
    (lambda: nn.Conv3d(2, 3, 2, padding=1), normals(2, 2, 4, 3, 3)),
    (lambda: PaddedBefore(4, 6, 3, stride=2), normals(2, 4, 8, 8)),
    (lambda: Scaled(4, 3), normals(5, 6, 4)),
    (lambda: nn.Embedding(7, 3), numbers(4, 6)),
    (lambda: nn.Embedding(7, 3, padding_idx=2), numbers(4, 6)),
    (lambda: nn.Embedding(7, 3), numbers(9)),
]


@pytest.fixture(params=range(len(CASES)), ids=lambda i: f"{i}")
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, inputs = CASES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make().double(), inputs


def by_autograd(layer: nn.Module, inputs: Tensor, delta: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad((layer(inputs) * delta).sum(), list(layer.parameters())))


def test_they_are_those_of_autograd(case: tuple[nn.Module, Tensor]) -> None:
    layer, inputs = case
    delta = normals(*layer(inputs).shape)
    found = dict(parameter_gradients(layer, inputs, delta, delta.shape))
    for p, wanted in zip(layer.parameters(), by_autograd(layer, inputs, delta), strict=True):
        torch.testing.assert_close(found[p], wanted)


def test_one_delta_may_stand_for_all_tokens(case: tuple[nn.Module, Tensor]) -> None:
    layer, inputs = case
    outputs = layer(inputs)
    axes = token_axes(layer, outputs)
    one = normals(*(1 if i in axes else n for i, n in enumerate(outputs.shape)))
    found = dict(parameter_gradients(layer, inputs, one, outputs.shape))
    wanted = by_autograd(layer, inputs, one.expand_as(outputs))
    for p, gradient in zip(layer.parameters(), wanted, strict=True):
        torch.testing.assert_close(found[p], gradient)


def test_frozen_parameters_get_none(case: tuple[nn.Module, Tensor]) -> None:
    layer, inputs = case
    layer.weight.requires_grad_(False)
    delta = normals(*layer(inputs).shape)
    found = dict(parameter_gradients(layer, inputs, delta, delta.shape))
    assert set(found) == {p for p in layer.parameters() if p.requires_grad}


class Odd(nn.Linear):
    """Draws, counts, has a child and a parameter that nobody reads."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.inner, self.unread = nn.Linear(4, 3), nn.Parameter(torch.zeros(2))
        self.register_buffer("n", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.n += 1
        torch.rand(1)
        return super().forward(inputs) + self.inner(inputs)


def test_a_forward_of_its_own_is_called_without_a_trace() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layer = Odd().double()
        delta, state = normals(5, 3), torch.get_rng_state()
        with torch.inference_mode():
            inputs = normals(5, 4) + 0
        found = dict(parameter_gradients(layer, inputs, delta, delta.shape))
        assert set(found) == {layer.weight, layer.bias}
        torch.testing.assert_close(found[layer.weight], delta.T @ inputs)
        assert float(layer.n) == 0
        assert torch.equal(torch.get_rng_state(), state)


def test_more_than_inputs_is_refused_where_a_forward_is_its_own() -> None:
    require_one_input("a", nn.Linear(4, 3), (1, 2))
    with pytest.raises(ConfigError, match="called with 2 arguments"):
        require_one_input("a", Scaled(4, 3), (1, 2))


@pytest.mark.parametrize(
    "layer", [nn.LSTM(3, 3), nn.Embedding(3, 2, sparse=True), nn.Embedding(3, 2, max_norm=1.0)]
)
def test_others_are_refused_by_name(layer: nn.Module) -> None:
    with pytest.raises(ConfigError, match="site 'own'"):
        require_supported("own", layer)

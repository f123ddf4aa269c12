"""Feature reuse: the same bits as without, and fewer calls of layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import fedzo
from fedzo.estimation import kept_inputs
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.structured import Axis
from fedzo.randomness import stream


class Counted(nn.Tanh):
    """A layer that counts its calls."""

    calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        type(self).calls += 1
        return super().forward(inputs)


def tied() -> nn.Module:
    layer = nn.Linear(5, 5)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(5, 3))


CHAINS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3)),
    "nested": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(5, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    ),
    "in place": lambda: nn.Sequential(
        nn.Linear(5, 4), nn.LeakyReLU(0.5, inplace=True), nn.Linear(4, 4),
        nn.LeakyReLU(0.5, inplace=True), nn.Linear(4, 3),
    ),
    "tied": tied,
    "normed": lambda: nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)
    ).eval(),
}  # fmt: skip
X = torch.from_numpy(stream(1, "kept").standard_normal((6, 5))).float()
Y = torch.arange(6) % 3


def made(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return CHAINS[name]()


@contextmanager
def nothing_kept(*_: object) -> Iterator[None]:
    yield None


def asked(module: nn.Module, inputs: Callable[[], Tensor] = lambda: X) -> list[float]:
    """Ask at both ends of every axis, and at x."""
    parameters = [*module.parameters()]
    dim = sum(p.numel() for p in parameters)
    place = InPlace(
        parameters, lambda: nn.functional.cross_entropy(module(inputs()), Y), module=module
    )
    ends = [[(Axis(i), side)] for i in range(dim) for side in (0.1, -0.1)]
    return place.asked_at([[], *ends, []])


@pytest.mark.parametrize("name", CHAINS)
def test_no_bit_changes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(made(name))
    monkeypatch.setattr("fedzo.estimation.in_place.keeping_inputs", nothing_kept)
    assert asked(made(name)) == found


def test_layers_before_the_moved_one_run_once() -> None:
    module = nn.Sequential(nn.Linear(5, 2), Counted(), nn.Linear(2, 3))
    Counted.calls = 0
    asked(module)
    assert Counted.calls == 1 + 2 * 12  # a first ask, and the axes of the first layer
    assert "forward" not in vars(module)


def test_other_inputs_are_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def changing() -> Callable[[], Tensor]:
        asks = iter(range(10_000))
        return lambda: X + next(asks) % 3

    found = asked(made("dense"), changing())
    monkeypatch.setattr("fedzo.estimation.in_place.keeping_inputs", nothing_kept)
    assert asked(made("dense"), changing()) == found


@pytest.mark.parametrize("shared", ["buffer", "array"])
def test_inputs_in_memory_that_is_used_again_are_computed_anew(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = X.numpy().copy()
    memory = torch.from_numpy(array)

    def refilling() -> Callable[[], Tensor]:
        asks = iter(range(10_000))

        def inputs() -> Tensor:
            if shared == "buffer":
                return memory.copy_(X + next(asks) % 3)
            array[:] = X.numpy() + next(asks) % 3  # of which torch does not know
            return memory

        return inputs

    found = asked(made("dense"), refilling())
    monkeypatch.setattr("fedzo.estimation.in_place.keeping_inputs", nothing_kept)
    assert asked(made("dense"), refilling()) == found


class Chosen(nn.Module):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["x"]


def test_inputs_that_are_no_tensor_pass_through() -> None:
    module = nn.Sequential(Chosen(), *made("dense"))
    place = [*module.parameters()]
    ask = lambda: nn.functional.cross_entropy(module({"x": X}), Y)  # noqa: E731
    ends = [[(Axis(module_dim(module) - i), 0.1)] for i in range(1, 4)]
    found = InPlace(place, ask, module=module).asked_at(ends)
    assert found == [InPlace(place, ask).at(end) for end in ends]


class Noisy(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + torch.randn_like(inputs)


class AlwaysDrops(nn.Dropout):
    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.dropout(inputs, self.p, training=True)


@pytest.mark.parametrize("layer", [Noisy, AlwaysDrops])
def test_layers_that_draw_whatever_the_mode_draw_in_every_pass(
    layer: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stepped() -> Tensor:
        module = nn.Sequential(layer(), *made("dense"), layer()).eval()
        optimizer = fedzo.ZerothOrder(module, 0.01, method="cge")
        with torch.random.fork_rng():
            torch.manual_seed(5)
            optimizer.step(lambda: nn.functional.cross_entropy(module(X), Y))
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    found = stepped()
    monkeypatch.setattr("fedzo.estimation.in_place.keeping_inputs", nothing_kept)
    assert torch.equal(stepped(), found)


@pytest.mark.parametrize("inference", [True, False])
def test_inference_mode_changes_nothing(inference: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = made("in place")
    loss = lambda: nn.functional.cross_entropy(module(X.clone()), Y)  # noqa: E731
    ends = [[(Axis(i), 0.1)] for i in range(50)]

    def closure() -> Tensor:
        with torch.inference_mode(inference):
            return loss()

    place = InPlace([*module.parameters()], closure, module=module)
    found = place.asked_at(ends)
    monkeypatch.setattr("fedzo.estimation.in_place.keeping_inputs", nothing_kept)
    assert place.asked_at(ends) == found


def test_who_draws_or_is_watched_is_asked_whole() -> None:
    draws = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3))
    watched = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    watched[1].register_forward_hook(lambda *_: None)

    class Own(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) + 1

    for module in (draws, watched, Own(nn.Linear(5, 4), nn.Linear(4, 3)), nn.Linear(5, 3)):
        moves = [[(Axis(module_dim(module) - 1), 0.1)]] * 3
        place = [*module.parameters()]
        with kept_inputs.keeping_inputs(module, place, moves) as kept:
            assert kept is None


def module_dim(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_an_error_leaves_the_module_as_it_was() -> None:
    module = made("dense")
    moves = [[(Axis(module_dim(module) - 1), 0.1)]] * 3

    def fails() -> None:
        with kept_inputs.keeping_inputs(module, [*module.parameters()], moves):
            assert "forward" in vars(module)
            raise RuntimeError("once")

    with pytest.raises(RuntimeError, match="once"):
        fails()
    assert "forward" not in vars(module)


def test_cge_takes_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped() -> Tensor:
        module = made("nested")
        optimizer = fedzo.ZerothOrder(module, 0.01, method="cge")
        for _ in range(2):
            optimizer.step(lambda: nn.functional.cross_entropy(module(X), Y))
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    found = stepped()
    monkeypatch.setattr("fedzo.estimation.in_place.keeping_inputs", nothing_kept)
    assert torch.equal(stepped(), found)

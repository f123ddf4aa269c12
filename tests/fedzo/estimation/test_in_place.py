"""Modules asked and moved in place: exact, in any type, with the numbers of the stacked way."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from fedzo.errors import ConfigError
from fedzo.estimation.estimate import Estimate
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.keys import Key, Law
from fedzo.estimation.place import add_terms_, write_moved
from fedzo.estimation.schemes import SCHEMES, combine, gradient_coefficients
from fedzo.objectives.objective import ModuleObjective, TorchObjective
from fedzo.objectives.objective import flatten_parameters as flat

LOSS = nn.functional.cross_entropy
TYPES = [torch.float32, torch.float64, torch.bfloat16]


class Everything(nn.Module):
    """Parameters that are tied, frozen, empty, permuted in memory, sliced, and read by a parent."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.image = nn.Conv2d(8, 6, (2, 1))
        self.norm = nn.BatchNorm1d(6)
        self.frozen = nn.Linear(6, 8)
        self.head = nn.Linear(8, 7)
        self.head.weight = self.embed.weight
        self.none = nn.Parameter(torch.zeros(0))
        self.temperature = nn.Parameter(torch.tensor(0.5))
        self.frozen.requires_grad_(False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        h = self.embed(tokens)
        h = h + self.attend(h, h, h, need_weights=False)[0]
        h = self.image(h.transpose(1, 2).unsqueeze(-1)).flatten(2).mean(-1)
        h = self.frozen(self.norm(h).relu())
        return self.head(h) * self.temperature + h @ self.embed.weight[:, :8].T


def rich_objective(dtype: torch.dtype) -> ModuleObjective:
    with torch.random.fork_rng():
        net = Everything().to(dtype)
    for p in net.parameters():
        p.data.zero_()
    add_terms_(list(net.parameters()), [(Key(seed=11, law="gaussian"), 0.3)])
    net.image.weight.data = net.image.weight.data.contiguous(memory_format=torch.channels_last)
    assert dtype != torch.float32 or not net.image.weight.is_contiguous()
    tokens = (torch.arange(20) * 3 % 7).reshape(4, 5)
    return ModuleObjective(net, LOSS, tokens, torch.tensor([0, 1, 2, 3]))


def keys_of(count: int, law: Law = "gaussian") -> list[Key]:
    return [Key(seed=1, parts=("u",), law=law, direction=i) for i in range(count)]


def drawn(keys: Sequence[Key], dim: int, dtype: torch.dtype) -> Tensor:
    return torch.stack([key.draw(0, dim, dtype=dtype) for key in keys])


def bits(module: nn.Module) -> dict[str, bytes]:
    """Return every parameter and buffer as it is in memory."""
    return {
        name: bytes(tensor.detach().clone().flatten().view(torch.uint8).tolist())
        for name, tensor in module.state_dict().items()
    }


def test_a_step_by_hand() -> None:
    """f = (w0 + 2 w1)^2 at w = (1, 1), along two signs: slopes are exact for quadratics."""
    net = nn.Linear(2, 1, bias=False)
    net.weight.data = torch.ones(1, 2)
    inputs, zero = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1)
    place = InPlace.of_module(ModuleObjective(net, nn.functional.mse_loss, inputs, zero))
    keys = keys_of(2, "rademacher")
    (a, b), (c, d) = (key.draw(0, 2).tolist() for key in keys)
    assert place.loss() == 9
    place.shift_(keys[0], 0.5)
    assert place.loss() == (3 + 0.5 * (a + 2 * b)) ** 2
    place.shift_(keys[1], -1.0)
    assert place.loss() == (3 + 0.5 * (a + 2 * b) - (c + 2 * d)) ** 2
    place.restore_()
    assert place.loss() == 9
    estimate = place.estimate(keys, SCHEMES["central"], 0.25)
    first, second = 6 * (a + 2 * b) / 2, 6 * (c + 2 * d) / 2
    assert estimate.coefficients.tolist() == [first, second]
    expected = torch.tensor([first * a + second * c, first * b + second * d])
    assert torch.equal(estimate.vector(2), expected)
    estimate.add_to_(place.place, -0.125)
    assert torch.equal(net.weight.data[0], torch.ones(2) - 0.125 * expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_asking_leaves_every_bit(dtype: torch.dtype, law: Law) -> None:
    """With shifts as large as the weights, where adding and subtracting would lose most bits."""
    objective = rich_objective(dtype)
    before = bits(objective.module)
    place = InPlace.of_module(objective)
    there = place.loss()
    for key in keys_of(4, law):
        place.shift_(key, 0.3)
        assert place.loss() != there
        place.restore_()
    assert place.loss() == there
    assert bits(objective.module) == before
    x = flat(objective.module)
    u = keys_of(1, law)[0].draw(0, len(x), dtype=dtype)
    assert not torch.equal(x + 0.3 * u - 0.3 * u, x)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_shifted_module_has_the_value_at_the_shifted_vector(dtype: torch.dtype) -> None:
    objective = rich_objective(dtype)
    x, key = flat(objective.module), keys_of(1)[0]
    moved = torch.empty_like(x)
    write_moved(moved, x, 0, [(key, 0.1)])
    expected = float(objective.value(moved))
    wide = torch.promote_types(dtype, torch.float32)
    plain = x.to(wide) + 0.1 * key.draw(0, len(x), dtype=wide)
    assert torch.allclose(moved.to(wide), plain, rtol=8e-3 if dtype == torch.bfloat16 else 1e-6)
    for place in (InPlace.of_module(objective), InPlace.of_vector(objective, x)):
        assert place.dim == objective.dim == len(x)
        assert place.loss() == pytest.approx(float(objective.value(x)), rel=1e-6)
        place.shift_(key, 0.1)
        assert place.loss() == pytest.approx(expected, rel=1e-2 if dtype == TYPES[2] else 1e-6)
    assert place.loss() == expected  # in the same memory format, the same bits


@pytest.mark.parametrize("name", ["forward", "central"])
@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_the_gradient_is_that_of_stacked_points(name: str, law: Law) -> None:
    objective = rich_objective(torch.float64)
    x, keys, mu = flat(objective.module), keys_of(5, law), 1e-3
    scheme = SCHEMES[name]
    u = drawn(keys, len(x), torch.float64).unsqueeze(0)
    values = objective.value(scheme.points(x.unsqueeze(0), u, mu)).detach()
    slopes = scheme.slopes(values, mu, None)
    expected = combine(gradient_coefficients(slopes, 1.0), u)[0]
    found = InPlace.of_module(objective).estimate(keys, scheme, mu)
    vector = found.vector(len(x), dtype=torch.float64)
    torch.testing.assert_close(vector, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", TYPES)
def test_adding_an_estimate_moves_trained_parameters_alone(dtype: torch.dtype) -> None:
    objective = rich_objective(dtype)
    module = objective.module
    trained = {name for name, p in module.named_parameters() if p.requires_grad and p.numel()}
    before, x = bits(module), flat(module)
    estimate = Estimate(keys_of(3), torch.tensor([1.0, -2.0, 0.5]))
    estimate.add_to_(InPlace.of_module(objective).place, -0.1)
    changed = {name for name, tensor in bits(module).items() if tensor != before[name]}
    assert changed == trained | {"head.weight"}
    wide = torch.promote_types(dtype, torch.float32)
    expected = x.to(wide) - 0.1 * estimate.vector(len(x), dtype=wide)
    assert torch.allclose(flat(module).to(wide), expected, rtol=8e-3, atol=1e-6)


def test_the_same_bits_in_any_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """One vector, its pieces, and blocks of few numbers."""
    terms = [(key, 0.1) for key in keys_of(2)]
    whole = torch.linspace(-1, 1, 5000)
    pieces = list(whole.clone().split([7, 1, 2992, 2000]))
    columns = whole.clone().reshape(50, 100).T.contiguous().T
    add_terms_([whole], terms)
    monkeypatch.setattr("fedzo.estimation.place._AT_ONCE", 300)
    add_terms_(pieces, terms)
    add_terms_([columns], terms)
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(columns.reshape(-1), whole)


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    def run(seed: int) -> Tensor:
        objective = rich_objective(torch.float32)
        place = InPlace.of_module(objective)
        for step in range(2):
            keys = [Key(seed=seed, parts=(step,), direction=i) for i in range(2)]
            place.estimate(keys, SCHEMES["central"], 1e-2).add_to_(place.place, -0.01)
        return flat(objective.module)

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_steps_descend() -> None:
    """To 2 % of the start in 40 steps, on a quadratic of 6 variables."""
    objective = TorchObjective(function=lambda z: ((z - 1) ** 2).sum(-1), dim=6)
    place = InPlace.of_vector(objective, torch.zeros(6))
    for step in range(40):
        keys = [Key(seed=0, parts=(step,), direction=i) for i in range(2)]
        place.estimate(keys, SCHEMES["central"], 1e-2).add_to_(place.place, -0.1)
    assert place.loss() < 0.02 * 6


def test_values_that_are_nan_have_no_part() -> None:
    x = torch.zeros(3)
    keys = keys_of(8, "rademacher")
    u = drawn(keys, 3, torch.float32)
    objective = TorchObjective(
        function=lambda z: torch.where(z[..., 0] > 0, torch.nan, z[..., 1]), dim=3
    )
    found = InPlace.of_vector(objective, x).estimate(keys, SCHEMES["forward"], 0.5)
    known = u[:, 0] < 0
    assert 0 < int(known.sum()) < 8
    torch.testing.assert_close(found.coefficients, (u[:, 1] * known / known.sum()).double())


def test_a_scheme_that_remembers_takes_values() -> None:
    objective = TorchObjective(function=lambda z: z.sum(-1), dim=3)
    place, keys = InPlace.of_vector(objective, torch.zeros(3)), keys_of(2, "rademacher")
    values = place.values(keys, SCHEMES["residual"], 0.5)
    assert values.tolist() == [0.5 * float(key.draw(0, 3).sum()) for key in keys]
    with pytest.raises(ConfigError, match="memory"):
        place.estimate(keys, SCHEMES["residual"], 0.5)


def test_an_error_leaves_no_shift() -> None:
    def fails(z: Tensor) -> Tensor:
        if bool((z != 0).any()):
            raise RuntimeError("cannot")
        return z.sum(-1)

    place = InPlace.of_vector(TorchObjective(function=fails, dim=2), torch.zeros(2))
    with pytest.raises(RuntimeError, match="cannot"):
        place.estimate(keys_of(1), SCHEMES["central"], 0.1)
    assert place.loss() == 0


def test_no_vector_of_the_length_of_x_is_made() -> None:
    """Of 30 equal layers, never is more than one copied."""
    largest, original = 0, torch.empty_strided

    def counted(size: Sequence[int], *args: object, **kwargs: object) -> Tensor:
        nonlocal largest
        made: Tensor = original(size, *args, **kwargs)
        largest = max(largest, made.numel())
        return made

    net = nn.Sequential(*[nn.Linear(16, 16) for _ in range(30)])
    net.register_parameter("none", nn.Parameter(torch.zeros(0)))
    objective = ModuleObjective(net, nn.functional.mse_loss, torch.ones(1, 16), torch.zeros(1, 16))
    for place in (
        InPlace.of_module(objective),
        InPlace.of_vector(objective, flat(net)),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "empty_strided", counted)
            place.shift_(keys_of(1)[0], 0.1)
            place.loss()
    assert largest == 256

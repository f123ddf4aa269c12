"""Modules that are asked together have the bits that each has alone."""

import signal
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedzo.estimation.schemes import combine
from fedzo.objectives.cohort import cohort_gradient, cohort_of
from fedzo.objectives.looped_cohort import LoopedFiniteSums
from fedzo.objectives.module_cohort import ModuleCohort
from fedzo.objectives.modules import ModuleObjective, flatten_parameters
from fedzo.objectives.same_bits import product
from fedzo.objectives.stacked_modules import program_of
from fedzo.randomness import stream
from scenarios.runs.simulate import federate

WIDTH, CLASSES, EXAMPLES = 12, 5, 9


class Own(nn.Module):
    """What people write: layers as attributes, functions in `forward`, a setting."""

    def __init__(self, depth: int = 2, act: Callable[[Tensor], Tensor] = functional.gelu) -> None:
        super().__init__()
        self.depth, self.act = depth, act
        self.first, self.again = nn.Linear(WIDTH, 7), nn.Linear(7, 7)
        self.norm, self.last = nn.LayerNorm(7), nn.Linear(7, CLASSES)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.act(self.first(inputs))
        for _ in range(self.depth):
            x = x + self.scale * torch.tanh(self.again(self.norm(x)))
        return self.last(x)  # type: ignore[no-any-return]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(WIDTH, WIDTH, bias=False)
        self.two = nn.Linear(WIDTH, CLASSES)
        self.three = nn.Linear(WIDTH, WIDTH, bias=False)
        self.three.weight = self.one.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.two(self.three(torch.relu(self.one(inputs))))  # type: ignore[no-any-return]


class Attends(nn.Module):
    """Attention written out, which is batched products."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs, self.last = nn.Linear(3, 9), nn.Linear(3, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        q, k, v = self.pairs(inputs.reshape(len(inputs), WIDTH // 3, 3)).chunk(3, dim=-1)
        weights = torch.softmax(q @ k.mT / 3**0.5, dim=-1)
        return self.last((weights @ v).mean(dim=1))  # type: ignore[no-any-return]


class Looks(nn.Module):
    """Control flow by numbers, which cannot be mapped."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.last(inputs)
        return out if bool(out.sum() > 0) else 2 * out


class Shares(nn.Module):
    """A product with a tensor that is no part of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.given = nn.Linear(WIDTH, CLASSES), torch.eye(WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(inputs @ self.given.to(inputs))  # type: ignore[no-any-return]


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(20, 6), nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        words = inputs.abs().mul(5).long().clamp(max=19)
        return self.last(self.table(words).mean(dim=1))  # type: ignore[no-any-return]


def normed() -> nn.Module:
    net = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU())
    net[1].running_mean += torch.arange(8.0)  # type: ignore[operator]
    return net.append(nn.Linear(8, CLASSES))


def convolution() -> nn.Module:
    net = (nn.Unflatten(1, (1, WIDTH)), nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(40, CLASSES))
    return nn.Sequential(*net)


TOGETHER: dict[str, Callable[[], nn.Module]] = {
    "own": Own,
    "tied": Tied,
    "attends": Attends,
    "words": Words,
    "wide": lambda: nn.Sequential(nn.Linear(WIDTH, 300), nn.SiLU(), nn.Linear(300, CLASSES)),
}
ALONE: dict[str, Callable[[], nn.Module]] = {
    "normed": normed,
    "looks": Looks,
    "shares": Shares,
    "convolution": convolution,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": nn.CrossEntropyLoss(label_smoothing=0.1),
    "squared": lambda out, y: (out.softmax(-1)[:, 0] - y).square().mean(),
}


def objectives(
    make: Callable[[], nn.Module],
    count: int = 5,
    *,
    loss: str = "cross-entropy",
    dtype: torch.dtype = torch.float32,
    examples: Sequence[int] = (),
) -> list[ModuleObjective]:
    """Return clients with modules and data of their own."""
    found = []
    for client in range(count):
        size = examples[client] if examples else EXAMPLES
        numbers = stream(3, "stacked", client).standard_normal((size, WIDTH))
        labels = torch.from_numpy(stream(4, "stacked", client).integers(0, CLASSES, size))
        with torch.random.fork_rng():
            torch.manual_seed(client)
            module = make().to(dtype)
        inputs = torch.from_numpy(numbers).to(dtype)
        found.append(ModuleObjective(module, LOSSES[loss], inputs, labels))
    return found


def points(own: Sequence[ModuleObjective], queries: int) -> Tensor:
    starts = torch.stack([flatten_parameters(each.module) for each in own])
    shifts = stream(5, "points").standard_normal((len(own), queries, starts.shape[1]))
    return starts.unsqueeze(1) + torch.from_numpy(shifts).to(starts) / 10


def is_together(cohort: ModuleCohort) -> bool:
    return ways(cohort) in ({"together"}, {"filled"})


def ways(cohort: ModuleCohort) -> set[str]:
    """Return how the clients of a cohort were asked, in this process so far."""
    programs = cohort.programs.found.values()
    return {way for each in programs for way in (each.ways.values() if each else ["alone"])}


@pytest.mark.more
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", [*TOGETHER, *ALONE])
def test_company_changes_no_bit(name: str, loss: str, dtype: torch.dtype) -> None:
    own = objectives({**TOGETHER, **ALONE}[name], 3, loss=loss, dtype=dtype)
    x = points(own, 2)
    cohort = cohort_of(own)
    assert isinstance(cohort, ModuleCohort)
    values, gradients = cohort.value(x), cohort_gradient(cohort, x[:, 0])
    assert is_together(cohort) == (name in TOGETHER)
    for client, each in enumerate(own):
        alone, at = cohort_of([each]), x[client : client + 1]
        assert torch.equal(alone.value(at), values[client : client + 1])
        assert torch.equal(cohort_gradient(alone, at[:, 0]), gradients[client : client + 1])
        assert torch.equal(each.value(x[client]).double(), values[client])
        direct = torch.stack([each.loss_at(point) for point in x[client]]).detach().double()
        assert torch.allclose(direct, values[client], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TOGETHER)
def test_so_do_minibatches_of_any_size(name: str) -> None:
    own = objectives(TOGETHER[name], examples=(9, 4, 9, 6, 4))
    rows = [torch.arange(min(6, len(each.inputs))) for each in own]
    indices = torch.stack([functional.pad(row, (0, 6 - len(row)), value=-1) for row in rows])
    x, part = points(own, 2), cohort_of(own).minibatch(indices)  # type: ignore[attr-defined]
    values = part.value(x)
    assert part.sizes.tolist() == [6, 4, 6, 6, 4]
    for client, (each, row) in enumerate(zip(own, rows, strict=True)):
        assert torch.equal(each.minibatch(row).value(x[client]).double(), values[client])
    assert is_together(part)
    [program] = {*part.programs.found.values()}
    assert program
    assert {*program.ways} >= {(4, False), (6, False)}


def test_chunks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    own = objectives(Own)
    x = points(own, 4)
    whole = cohort_of(own).value(x)
    for floats in (1, 1_000, 3_000):
        monkeypatch.setattr("fedzo.objectives.stacked_modules._ROW_FLOATS", floats)
        assert torch.equal(cohort_of(own).value(x), whole)


@pytest.mark.parametrize("name", TOGETHER)
def test_so_it_is_where_products_look_at_the_company(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this machine's processor is: on some the library for products looks at it."""
    by_rows = "fedzo.objectives.same_bits.multiplies_row_by_row"
    monkeypatch.setattr(by_rows, lambda *_: False)
    program_of.cache_clear()  # what was found of a machine that does not
    own = objectives(TOGETHER[name])
    x = points(own, 3)
    values = cohort_of(own).value(x)
    gradients = cohort_gradient(cohort_of(own), x[:, 0])
    for rows in (slice(1), slice(1, 3), slice(4, 5)):
        assert torch.equal(cohort_of(own[rows]).value(x[rows]), values[rows])
        part = cohort_gradient(cohort_of(own[rows]), x[rows, 0])
        assert torch.equal(part, gradients[rows])
    program_of.cache_clear()
    monkeypatch.undo()
    assert torch.allclose(cohort_of(own).value(x), values, rtol=1e-5)


def different_losses(own: list[ModuleObjective]) -> list[ModuleObjective]:
    def weighed(factor: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda out, y: factor * functional.cross_entropy(out, y)

    losses: list[Callable[[Tensor, Tensor], Tensor]]
    losses = [weighed(1), weighed(2), partial(LOSSES["squared"])]
    pairs = zip(own, losses, strict=True)
    return [ModuleObjective(o.module, loss, o.inputs, o.targets) for o, loss in pairs]


def different_modules(own: list[ModuleObjective]) -> list[ModuleObjective]:
    own[1].module.depth = 3  # type: ignore[assignment]
    own[2].module.act = torch.tanh  # type: ignore[assignment]
    return own


def different_parts(own: list[ModuleObjective]) -> list[ModuleObjective]:
    own[1].module.norm.eps = 1.0  # type: ignore[union-attr, assignment]
    own[2].module.norm = nn.LayerNorm(7, eps=0.5)
    return own


@pytest.mark.parametrize("differ", [different_losses, different_modules, different_parts])
def test_what_computes_something_else_is_another_program(
    differ: Callable[[list[ModuleObjective]], list[ModuleObjective]],
) -> None:
    own = differ(objectives(Own, 3))
    x = points(own, 2)
    values = cohort_of(own).value(x)
    for client, each in enumerate(own):
        direct = torch.stack([each.loss_at(point) for point in x[client]]).detach().double()
        assert torch.allclose(direct, values[client], rtol=1e-5)


def test_losses_made_for_each_client_are_one_program() -> None:
    def loss(scale: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda out, y: scale * functional.cross_entropy(out, y)

    own = [ModuleObjective(o.module, loss(2.0), o.inputs, o.targets) for o in objectives(Own, 3)]
    cohort = cohort_of(own)
    cohort.value(points(own, 1))
    assert isinstance(cohort, ModuleCohort)
    assert is_together(cohort)


def test_hooks_frozen_parts_and_low_precision_are_asked_alone() -> None:
    hooked, frozen, low = objectives(Own, 3)
    seen: list[int] = []
    hooked.module.register_forward_hook(lambda *_: seen.append(1))
    frozen.module.last.bias.requires_grad_(False)  # type: ignore[union-attr]
    for each in (hooked, ModuleObjective(frozen.module, *_rest(frozen)), low):
        if each is low:
            inputs = low.inputs.to(torch.bfloat16)
            each = ModuleObjective(low.module.to(torch.bfloat16), low.loss, inputs, low.targets)
        cohort = cohort_of([each, each])
        assert isinstance(cohort, ModuleCohort)
        assert cohort.value(points([each, each], 2)).isfinite().all()
        assert not is_together(cohort)
    assert len(seen) == 4


def _rest(own: ModuleObjective) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]:
    return own.loss, own.inputs, own.targets


def test_who_raises_fails_alone_and_moves_no_bit_of_others() -> None:
    own = objectives(Own, 3)
    x = points(own, 2)
    values = cohort_of(own).value(x)
    wrong = ModuleObjective(own[1].module, own[1].loss, own[1].inputs, own[1].targets + CLASSES)
    for trained in (False, True):
        cohort = cohort_of([own[0], wrong, own[2]])
        asked = x[:, :1].clone().requires_grad_(trained)
        found = cohort.value(asked)
        assert [*cohort.failures] == [1]
        assert found[1].isnan().all()
        assert torch.equal(found[[0, 2]].detach(), values[[0, 2], :1])


def test_who_raises_once_moves_no_bit_of_others() -> None:
    class Flaky(Own):
        calls = 0

        def forward(self, inputs: Tensor) -> Tensor:
            type(self).calls += 1
            if type(self).calls == 1:  # in the company's first program, not when asked again
                raise RuntimeError("once")
            return super().forward(inputs)

    x = points(objectives(Own, 3), 2)
    values = cohort_of(objectives(Own, 3)).value(x)
    cohort = cohort_of(objectives(Flaky, 3))
    first, again = cohort.value(x), cohort.value(x)
    assert Flaky.calls > 1
    assert not cohort.failures
    assert torch.equal(first, values)
    assert torch.equal(again, values)


def test_a_constant_that_is_no_row_keeps_modules_together() -> None:
    class Scaled(Own):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) * torch.tensor(0.5).exp()

    cohort = cohort_of(objectives(Scaled, 3))
    cohort.value(points(cohort.objectives, 1))  # type: ignore[attr-defined]
    assert isinstance(cohort, ModuleCohort)
    assert is_together(cohort)


def test_a_black_box_inside_a_module_says_so() -> None:
    class Opaque(Own):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs).detach()

    cohort = cohort_of(objectives(Opaque, 2))
    cohort_gradient(cohort, points(cohort.objectives, 1)[:, 0])  # type: ignore[attr-defined]
    assert sorted(cohort.failures) == [0, 1]
    assert "black box" in cohort.failures[0]


def test_flipped_labels_stay_together() -> None:
    cohort = cohort_of(objectives(Own, 3)).flipped()  # type: ignore[attr-defined]
    cohort.value(points(cohort.objectives, 1))
    assert is_together(cohort)


def test_a_run_is_the_same_whoever_is_asked_together() -> None:
    """By cohorts of five, of two, of one, and by threads."""
    own = objectives(Own, 5)
    runs = []
    for how in ({}, {"chunk_size": 2}, {"chunk_size": 1}, {"workers": 2}):
        settings = {
            "client.batch_size": 4,
            "strategy.local_steps": 2,
            **{f"engine.{k}": v for k, v in how.items()},
        }
        result = federate(
            own.__getitem__, num_clients=5, strategy="fedavg", num_rounds=2, settings=settings
        )
        runs.append(result.solutions[0])
    assert all(torch.equal(run, runs[0]) for run in runs)


def test_looped_cohorts_remain_for_other_objectives() -> None:
    class Special(ModuleObjective):
        """A kind of its own, whose value may be another."""

    own = objectives(Own, 2)
    special = [Special(o.module, *_rest(o)) for o in own]
    assert type(cohort_of(special)) is LoopedFiniteSums


def test_what_a_signal_raises_is_no_failure_of_a_client() -> None:
    class Late(Exception):
        pass

    def ring(_number: int, _frame: object) -> None:
        raise Late

    class Waits(Own):
        def forward(self, inputs: Tensor) -> Tensor:
            signal.raise_signal(signal.SIGUSR1)
            return super().forward(inputs)

    before = signal.signal(signal.SIGUSR1, ring)
    try:
        own = objectives(Waits, 2)
        with pytest.raises(Late):
            cohort_of(own).value(points(own, 1))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_products_and_their_gradients_are_right_where_matrices_are_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 1, 5, 7), (3, 2, 7, 2))
    )
    wanted = left @ right
    monkeypatch.setattr("fedzo.objectives.same_bits.multiplies_row_by_row", lambda *_: False)
    found = product(left, right)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-14)
    slopes = [torch.autograd.grad(one.square().sum(), (left, right)) for one in (found, wanted)]
    for here, there in zip(*slopes, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-13, atol=1e-13)
    coefficients, directions = left[:, 0, 0].detach(), right[:, 0].detach()
    monkeypatch.setattr("fedzo.estimation.schemes.multiplies_row_by_row", lambda *_: False)
    combined = combine(coefficients, directions)
    torch.testing.assert_close(combined, torch.einsum("nm,nmd->nd", coefficients, directions))

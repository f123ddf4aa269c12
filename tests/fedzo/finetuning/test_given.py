"""What users give to ZerothOrder: parameters, groups, types, autocast, dropout, copies."""

import copy
import ctypes
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from module_nets import loss_of as fixed_loss
from module_nets import net as fixed
from module_nets import numbers
from torch import Tensor, nn
from torch.nn import functional

from fedzo import ZerothOrder
from fedzo.errors import CheckpointError, ConfigError, FedzoWarning, ObjectiveError
from fedzo.finetuning.methods.plain import MeZO
from fedzo.finetuning.methods.table import METHODS

X = torch.linspace(-2, 2, 64 * 8).sin().reshape(64, 8) + torch.linspace(0, 1, 64).unsqueeze(1)
Y = torch.arange(64) % 3


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3))


def loss_of(module: nn.Module) -> Callable[[], Tensor]:
    return lambda: functional.cross_entropy(module(X), Y)


def test_passes_of_a_step_drop_the_same_out_and_take_what_one_would() -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    seen: list[Tensor] = []
    module[1].register_forward_hook(lambda _, __, out: seen.append(out == 0))
    optimizer = ZerothOrder(module.parameters(), lr=0.0, method="fzoo")
    state = torch.get_rng_state()
    optimizer.step(loss_of(module))
    after = torch.get_rng_state()
    assert len(seen) == 9
    assert all(torch.equal(mask, seen[0]) for mask in seen)
    torch.set_rng_state(state)
    module(X)
    assert torch.equal(torch.get_rng_state(), after)
    optimizer.step(loss_of(module))
    assert not torch.equal(seen[-1], seen[0])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: np.random.randint(0, 64),  # noqa: NPY002
        lambda: int(100 * np.random.randn()),  # noqa: NPY002 (numpy makes two at a time)
        lambda: random.randrange(64),
        lambda: int(100 * random.gauss(0, 1)),
        lambda: int(torch.randint(64, ())),
    ],
)
def test_passes_of_a_step_draw_the_same_by_torch_numpy_and_python(draw: Callable[[], int]) -> None:
    module, seen = fixed(), list[int]()

    def closure() -> Tensor:
        seen.append(draw())
        return fixed_loss(module)()

    def seeded() -> None:
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        random.seed(3)

    optimizer = ZerothOrder(module, lr=0.0, method="fzoo")
    seeded()
    for _ in range(2):
        optimizer.step(closure)
    assert len(seen) == 18
    after = draw()
    seeded()
    first, second = draw(), draw()
    assert seen == [first] * 9 + [second] * 9, "a step takes what one pass would"
    assert draw() == after


def test_parameters_alone_train_a_module_with_dropout() -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    optimizer = ZerothOrder(module.parameters(), lr=0.01)
    begun = float(loss_of(module.eval())())
    module.train()
    for _ in range(100):
        optimizer.step(loss_of(module))
    assert float(loss_of(module.eval())()) < begun


@pytest.mark.parametrize("around", ["closure", "step", "both"])
def test_autocast_sees_every_place(around: str) -> None:
    module = net()
    optimizer = ZerothOrder(
        module, lr=0.01, method="zo_sgd", settings={"num_directions": 4, "mu": 0.01}
    )
    plain, asked = loss_of(module), loss_of(module)
    if around != "step":

        def asked() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return plain()

    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16, enabled=around != "closure"):
            optimizer.step(asked)
    told = torch.tensor(optimizer.log.told)
    assert len(told.unique()) > 40
    assert float(plain()) < float(loss_of(net())())


def test_named_parameters_keep_their_names_and_repeated_ones_count_once() -> None:
    module = net()
    named = ZerothOrder(module.named_parameters(), lr=0.1, view="3")
    assert named.view.names == ("3.weight", "3.bias")
    p, q = module[0].bias, module[3].bias
    twice = ZerothOrder([p, q, p], lr=0.1)
    assert (twice.view.names, twice.view.total) == (("0", "1"), 19)
    with pytest.raises(ConfigError, match="two parameters are named 'weight'"):
        ZerothOrder([*module[0].named_parameters(), *module[3].named_parameters()], lr=0.1)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([{"params": [nn.Parameter(torch.zeros(2))]}], "not dict; it has one group"),
        ([], "no parameters"),
        ([torch.zeros(2, dtype=torch.complex64, requires_grad=True)], "of real numbers"),
        (nn.Linear(2, 2, device="meta"), "on a device, with numbers"),
        ([torch.zeros(2)], "are frozen"),
        (nn.LazyLinear(3), "'weight'=of no shape yet must be initialized"),
    ],
)
def test_what_cannot_be_trained_is_refused(given: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ZerothOrder(given, lr=0.1)


def test_parameters_of_inference_mode_are_refused() -> None:
    with torch.inference_mode():
        module = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="made in inference mode must be one that can be written"):
        ZerothOrder(module, lr=0.1)


def test_a_parameter_that_was_frozen_since_is_refused() -> None:
    module = fixed()
    optimizer = ZerothOrder(module, lr=0.1)
    optimizer.step(fixed_loss(module))
    module[0].requires_grad_(False)
    before = numbers(module)
    with pytest.raises(ConfigError, match=r"'0.weight'=frozen must be trained, as when"):
        optimizer.step(fixed_loss(module))
    assert torch.equal(numbers(module), before)


@pytest.mark.parametrize("method", ["zo_adam", "cge"])
def test_adam_in_half_precision_is_refused(method: str) -> None:
    with pytest.raises(ConfigError, match="in float16 small squares are 0 and eps=1e-08 too"):
        ZerothOrder(fixed().half(), lr=0.1, method=method)
    ZerothOrder(fixed().bfloat16(), lr=0.1, method=method)
    ZerothOrder(fixed().half(), lr=0.1, method="zoodip")  # whose eps is 1e-3


def test_a_log_whose_step_has_too_few_values_is_refused() -> None:
    module = fixed()
    optimizer = ZerothOrder(module, lr=0.1)
    optimizer.log.add(0.1, [1.0])
    with pytest.raises(CheckpointError, match="fewer values than its method asks for"):
        ZerothOrder(fixed(), lr=0.1).replay(optimizer.log)


def test_parameters_without_numbers_have_no_part_in_masks() -> None:
    module = fixed()
    module.register_parameter("none", nn.Parameter(torch.zeros(0, 3)))
    for mask in ("small", "large"):
        optimizer = ZerothOrder(module, 0.1, method="sparse_mezo", settings={"mask": mask})
        optimizer.step(fixed_loss(module))


def test_a_default_type_of_the_users_changes_no_direction() -> None:
    kind = torch.get_default_dtype()
    found = []
    for default in (torch.float32, torch.float64):
        module = fixed()
        loss = fixed_loss(module)
        torch.set_default_dtype(default)
        try:
            ZerothOrder(module, 0.1, method="zo_muon").step(loss)
        finally:
            torch.set_default_dtype(kind)
        found.append(numbers(module))
    assert torch.equal(*found)


def test_rates_views_and_methods_that_are_none() -> None:
    for lr in ("0.1", -1.0, float("nan"), None):
        with pytest.raises(ConfigError, match="a number, at least 0 and finite"):
            ZerothOrder(net(), lr=lr)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"view=\[\] must be a pattern"):
        ZerothOrder(net(), lr=0.1, view=[])
    assert ZerothOrder(net(), lr=np.float32(0.5), method=MeZO).method == MeZO()
    assert ZerothOrder(net(), lr=torch.tensor(0.5), view=np.array(["3"])).view.dim == 51
    module = net()
    module.register_parameter("unused", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    assert ZerothOrder(module, lr=0.1, view="0").view.dim == 144
    settings = {"num_directions": 3}
    chosen = ZerothOrder(net(), lr=0.5, method=MeZO, settings=settings).method
    assert chosen == MeZO(num_directions=3)


def test_a_loss_that_is_a_number_of_python_keeps_its_digits() -> None:
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = ZerothOrder([parameter], lr=0.05)
    for _ in range(300):
        optimizer.step(lambda: 1e4 + float(((parameter - 1) ** 2).sum()))
    assert float(((parameter - 1) ** 2).sum()) < 1e-12


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ((1.0, 2.0), r"the closure returned \(1.0, 2.0\); it must return the loss"),
        ({"loss": 1.0}, "it must return the loss, a tensor or a number"),
        (None, "the closure returned None"),
        (torch.zeros(2), "the loss is 2 numbers, and is to be one"),
        (torch.tensor(1j), "the loss is complex64, and is to be a real number"),
    ],
)
def test_a_closure_that_returns_no_loss_is_told(told: Any, said: str) -> None:
    parameter = nn.Parameter(torch.zeros(3))
    with pytest.raises(ObjectiveError, match=said):
        ZerothOrder([parameter], lr=0.05).step(lambda: (parameter.sum(), told)[1])


def test_a_rate_that_somebody_made_nan_is_refused() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = ZerothOrder([parameter], lr=0.05)
    optimizer.param_groups[0]["lr"] = float("nan")
    with pytest.raises(ConfigError, match="lr=nan must be finite"):
        optimizer.step(lambda: parameter.sum())
    assert not parameter.any()


def test_copies_are_refused_with_the_way_to_go_on() -> None:
    module = net()
    optimizer = ZerothOrder(module, lr=0.1)
    for copied in (lambda: pickle.dumps(optimizer), lambda: copy.deepcopy((module, optimizer))):
        with pytest.raises(ConfigError, match="its log"):
            copied()


def test_a_log_that_does_not_begin_with_the_steps_taken_is_refused() -> None:
    first, second = net(), net()
    second.load_state_dict(first.state_dict())
    start = copy.deepcopy(first)
    one, other = ZerothOrder(first, lr=0.1), ZerothOrder(second, lr=0.2)
    for _ in range(3):
        one.step(loss_of(first))
    other.step(loss_of(second))
    with pytest.raises(CheckpointError, match="does not begin with the 1 steps"):
        other.replay(one.log)
    with pytest.raises(CheckpointError, match="does not begin with the 3 steps"):
        one.replay(one.log.first(2))
    stranger = ZerothOrder(start, lr=0.1, seed=5)
    stranger.step(loss_of(start))
    with pytest.raises(CheckpointError, match="seed"):
        stranger.replay(one.log)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_a_mu_that_rounds_away_is_said(kind: torch.dtype) -> None:
    p = nn.Parameter(torch.full((64,), 0.75, dtype=kind))
    mu = 2.0**-10 if kind == torch.bfloat16 else 1e-9
    with pytest.warns(FedzoWarning, match="probes do not move them"):
        ZerothOrder([p], lr=0.1, settings={"mu": mu})


@pytest.mark.filterwarnings("error::fedzo.errors.FedzoWarning")
def test_a_mu_that_is_seen_is_not_warned_of() -> None:
    small = nn.Parameter(torch.full((64,), 0.05, dtype=torch.bfloat16))
    ZerothOrder([small, nn.Parameter(torch.full((64,), 0.75))], lr=0.1)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("lozo", {"rank": 0}), ("lozo", {"refresh": 0}), ("subzero", {"rank": 0}),
        ("block_zo", {"blocks": 0}), ("sparse_mezo", {"refresh": 0}), ("guided_es", {"k": 0}),
        ("guided_es", {"alpha": 2.0}), ("mezo_svrg", {"period": 0}), ("consensus", {"alpha": 0.0}),
        ("zoodip", {"period": 0}), ("zoodip", {"kept": 2.0}), ("zo_adam", {"beta1": 1.0}),
        ("deepzero", {"momentum": -1.0}), ("zo_momentum", {"momentum": 1.5}),
        ("zo_momentum", {"window": 0}), ("rank_sgd", {"trials": 0}), ("rank_sgd", {"best": -1}),
        ("zoro", {"sparsity": 0}), ("hizoo", {"rate": 5.0}), ("evolution", {"num_directions": 1}),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(method: str, settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ZerothOrder(net(), lr=0.1, method=method, settings=settings)


@pytest.mark.parametrize("method", ["hizoo", "cge"])
def test_a_number_of_directions_without_effect_is_said(method: str) -> None:
    with pytest.warns(FedzoWarning, match="num_directions=7 has no effect on"):
        ZerothOrder(net(), lr=0.1, method=method, settings={"num_directions": 7})


def test_every_rule_is_about_a_setting_of_its_method() -> None:
    for kind in METHODS.values():
        assert all(hasattr(kind(), name) for name in kind.ALLOWED)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.cell(x.reshape(64, 2, 4))[0].mean(1))
        return out


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x.reshape(64, 2, 4)).flatten(1))
        return out


@pytest.mark.parametrize("kind", [Recurrent, Attending])
def test_forward_gradients_of_modules_with_fused_kernels_are_those_of_autograd(kind: type) -> None:
    module = kind().eval()
    optimizer = ZerothOrder(module, lr=1.0, method="forward_gradient", seed=2)
    before = [p.detach().clone() for p in module.parameters()]
    grads = torch.autograd.grad(loss_of(module)(), list(module.parameters()))
    optimizer.step(loss_of(module))
    moved = [b - p.detach() for b, p in zip(before, module.parameters(), strict=True)]
    length = sum(float((m * m).sum()) for m in moved)
    along = sum(float((m * g).sum()) for m, g in zip(moved, grads, strict=True))
    count = sum(m.numel() for m in moved)
    slope = optimizer.log.told[0][1]  # moved = slope u, u of signs
    assert length == pytest.approx(slope * slope * count, rel=1e-3)
    assert along == pytest.approx(slope * slope, rel=1e-3)


@pytest.mark.parametrize("text", ["", "MyModel.loss is abstract"])
def test_errors_of_the_users_own_are_theirs(text: str) -> None:
    module = net()

    def asked() -> Tensor:
        raise NotImplementedError(text)

    with pytest.raises(NotImplementedError, match=text):
        ZerothOrder(module, lr=0.1, method="forward_gradient").step(asked)


@pytest.mark.filterwarnings("error")
def test_backends_are_as_before_a_forward_gradient() -> None:
    module = net()
    before = torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()
    ZerothOrder(module, lr=0.1, method="forward_gradient").step(loss_of(module))
    assert (torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()) == before


def test_an_operation_without_forward_derivatives_is_named() -> None:
    module = nn.Linear(8, 3)

    def asked() -> Tensor:
        return torch.nn.functional.ctc_loss(
            module(X).log_softmax(-1).unsqueeze(1), torch.ones(1, 2, dtype=torch.long), [64], [2]
        )

    optimizer = ZerothOrder(module, lr=0.1, method="forward_gradient")
    with pytest.raises(ObjectiveError, match="use a method that asks values"):
        optimizer.step(asked)


def test_sparse_recovery_looks_among_the_numbers_of_its_view() -> None:
    module = nn.Sequential(nn.Linear(8, 40), nn.Tanh(), nn.Linear(40, 3))
    settings = {"sparsity": 4, "num_directions": 96}
    optimizer = ZerothOrder(module, lr=0.1, method="zoro", settings=settings, view="2.weight")
    before = module[2].weight.detach().clone()
    [gradient] = torch.autograd.grad(loss_of(module)(), [module[2].weight])
    optimizer.step(loss_of(module))
    moved = (before - module[2].weight.detach()).flatten()
    assert int((moved != 0).sum()) == 4
    assert float(functional.cosine_similarity(moved, gradient.flatten(), dim=0)) > 0.2
    big = nn.Sequential(nn.Linear(3000, 3000), nn.Linear(3000, 2))
    assert ZerothOrder(big, lr=0.1, method="zoro", view="1.bias").view.dim == 2


class OutsideTorch(nn.Module):
    """Reads its weights where they lie, where moves are not seen, and its bias by torch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(3, 8)), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        numbers = (ctypes.c_float * 24).from_address(self.weight.data_ptr())
        return x @ torch.tensor(numbers[:]).reshape(3, 8).T + self.bias


def test_parameters_that_torch_does_not_read_are_said() -> None:
    module = OutsideTorch()
    optimizer = ZerothOrder(module, lr=0.1)
    with pytest.warns(FedzoWarning, match=r"read the parameter of shape \(3, 8\)"):
        optimizer.step(loss_of(module))


class ByNumpy(OutsideTorch):
    """Reads its weights by numpy, which moves are told to."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() @ self.weight.detach().numpy().T) + self.bias


@pytest.mark.filterwarnings("error::fedzo.errors.FedzoWarning")
@pytest.mark.parametrize("method", ["mezo", "cge", "zo_sgd"])
def test_parameters_read_by_numpy_go_the_way_of_those_read_by_torch(method: str) -> None:
    outside, inside = ByNumpy(), nn.Linear(8, 3)
    inside.load_state_dict(outside.state_dict())
    for module in (outside, inside):
        optimizer = ZerothOrder(module, lr=0.1, method=method)
        told = [optimizer.step(loss_of(module)) for _ in range(2)]
        assert len(told) == 2
    assert torch.allclose(outside.weight, inside.weight, atol=1e-4)
    assert not torch.equal(outside.weight, torch.ones(3, 8))


@pytest.mark.filterwarnings("error::fedzo.errors.FedzoWarning")
@pytest.mark.parametrize("method", ["mezo", "block_zo", "cge", "lozo", "sparse_mezo"])
def test_modules_that_are_read_whole_are_not_warned_of(method: str) -> None:
    module = nn.Sequential(nn.Embedding(70, 8), nn.Flatten(), nn.Linear(16, 3))
    tokens = torch.arange(128).reshape(64, 2) % 70
    optimizer = ZerothOrder(module, lr=0.1, method=method)
    optimizer.step(lambda: functional.cross_entropy(module(tokens), Y))


def test_seeds_are_whole_numbers_of_any_kind(tmp_path: Path) -> None:
    module = fixed()
    optimizer = ZerothOrder(module, lr=0.1, seed=np.int64(3))
    optimizer.step(fixed_loss(module))
    optimizer.log.save(tmp_path / "log")
    assert optimizer.log.origin.seed == 3
    for seed in (1.5, -1, "a", True, None, 2**63):
        with pytest.raises(ConfigError, match="seed="):
            ZerothOrder(fixed(), lr=0.1, seed=seed)

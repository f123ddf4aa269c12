"""What of a module is optimized: trained parameters, in the module's own arithmetic."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fedzo.errors import ConfigError, ObjectiveError
from fedzo.objectives.cohort import cohort_gradient, cohort_of
from fedzo.objectives.objective import ModuleObjective, flatten_parameters, restore_parameters
from fedzo.privacy.clipping import clipped_sums
from scenarios import federate

INPUTS = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(6, 5)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
LOSS = nn.functional.cross_entropy


def network(*, frozen: bool = True, norm: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    for number, p in enumerate(net.parameters()):
        p.data = torch.linspace(-1, 1, p.numel()).reshape(p.shape) / (number + 1)
    if norm:
        net.insert(1, nn.BatchNorm1d(4))
    net[0].requires_grad_(not frozen)
    return net.double()


class Drifting(nn.Module):
    """A module whose buffers move in whatever mode it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 3).double())
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(5).double())

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += x.mean(0)
        return (x + self.seen) @ self.weight


def test_frozen_parameters_are_no_part_of_x_and_stay() -> None:
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    objective = ModuleObjective(net, LOSS, INPUTS, LABELS)
    assert objective.dim == 4 * 3 + 3
    x = objective.initial_x
    assert x is not None
    assert float(objective.value(x)) == float(LOSS(net(INPUTS), LABELS))
    gradient = cohort_gradient(cohort_of([objective]), x.unsqueeze(0))[0]
    net.zero_grad()
    LOSS(net(INPUTS), LABELS).backward()
    assert net[0].weight.grad is None
    expected = torch.cat([p.grad.reshape(-1) for p in net.parameters() if p.grad is not None])
    torch.testing.assert_close(gradient, expected)
    moved = x + 1
    restore_parameters(net, moved)
    assert torch.equal(flatten_parameters(net), moved)
    assert torch.equal(net[0].weight, before["0.weight"])


@pytest.mark.parametrize("previous", [False, True])
def test_clipped_sums_leave_frozen_layers_out(previous: bool) -> None:
    """Those of the trained layer alone, from records one by one."""
    objective = ModuleObjective(network(), LOSS, INPUTS, LABELS)
    x = flatten_parameters(objective.module)
    points = [x] + [0.5 * x] * previous
    rows = []
    for i in range(6):
        of = objective.minibatch(torch.tensor([i]))
        told = [cohort_gradient(cohort_of([of]), p.unsqueeze(0))[0] for p in points]
        row = told[0] - told[1] if previous else told[0]
        rows.append(row * min(1.0, 0.05 / float(row.norm())))
    before = points[1].unsqueeze(0) if previous else None
    norms = torch.tensor([0.05], dtype=torch.float64)
    found = clipped_sums(cohort_of([objective]), x.unsqueeze(0), before, norms)
    torch.testing.assert_close(found.sums[0], torch.stack(rows).sum(0), rtol=1e-5, atol=1e-9)


def test_tied_weights_count_once_and_move_together() -> None:
    net = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Linear(5, 3)).double()
    net[2].weight = net[0].weight
    net[3].requires_grad_(False)
    objective = ModuleObjective(net, LOSS, INPUTS, LABELS)
    assert objective.dim == 25 + 5 + 5
    x = torch.linspace(-1, 1, 35, dtype=torch.float64)
    told = float(objective.value(x))
    restore_parameters(net, x)
    assert torch.equal(net[2].weight, net[0].weight)
    assert told == float(LOSS(net(INPUTS), LABELS))


class Twice(nn.Module):
    """A layer under two names that is called three times, a tensor under two, and a tied one."""

    def __init__(self) -> None:
        super().__init__()
        layer, rise = nn.Linear(5, 5), nn.PReLU()
        self.body = nn.Sequential(layer, rise, layer, rise, nn.BatchNorm1d(5))
        self.again, self.other = layer, nn.Linear(5, 5)
        self.other.bias = layer.bias
        self.shift = nn.Parameter(torch.full((5,), 0.3))
        self.also = self.shift
        self.head = nn.Linear(5, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.other(self.again(self.body(inputs) + self.shift) * self.also))


def test_a_layer_that_is_used_twice_is_one_and_stays_as_it_is() -> None:
    net = Twice().double()
    objective, own = ModuleObjective(net, LOSS, INPUTS, LABELS), list(net.parameters())
    x = objective.initial_x
    assert x is not None
    moved = x + torch.linspace(-1, 1, len(x), dtype=torch.float64)
    expected = copy.deepcopy(net).eval()
    restore_parameters(expected, moved)
    told = objective.value(torch.stack([x, moved]))
    torch.testing.assert_close(told[1], LOSS(expected(INPUTS), LABELS))
    gradient = cohort_gradient(cohort_of([objective]), moved.unsqueeze(0))[0]
    LOSS(expected(INPUTS), LABELS).backward()
    grads = torch.cat([p.grad.reshape(-1) for p in expected.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(gradient.reshape(-1), grads)
    assert [*map(id, net.parameters())] == [*map(id, own)]
    assert torch.equal(objective.initial_x, x)  # type: ignore[arg-type]
    cohort = cohort_of([objective, ModuleObjective(Twice().double(), LOSS, INPUTS, LABELS)])
    assert torch.allclose(cohort.value(torch.stack([x, moved]).unsqueeze(1))[0, 0], told[0])


def test_a_module_that_is_all_frozen_is_refused() -> None:
    with pytest.raises(ConfigError, match="all parameters of the Sequential are frozen"):
        ModuleObjective(network().requires_grad_(False), LOSS, INPUTS, LABELS)
    with pytest.raises(ConfigError, match="x has 3 numbers and the module trains 15"):
        restore_parameters(network(), torch.zeros(3))


@pytest.mark.parametrize("make", [Drifting, lambda: network(norm=True).train()])
def test_asking_moves_no_buffer(make: type[nn.Module]) -> None:
    net = make()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    objective = ModuleObjective(net, LOSS, INPUTS, LABELS)
    x = flatten_parameters(net)
    first = objective.value(torch.stack([x, x]))
    assert first[0] == first[1] == objective.value(x)
    cohort_gradient(cohort_of([objective]), x.unsqueeze(0))
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_module_in_half_precision_computes_in_it_and_x_does_not(dtype: torch.dtype) -> None:
    """Frozen parameters and buffers are in half precision too; x is float32."""
    seen: set[torch.dtype] = set()

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        seen.add(outputs.dtype)
        return LOSS(outputs.float(), labels)

    net = network(norm=True).to(dtype)
    settings = {"strategy.local_lr": 0.001}
    result = federate(
        lambda client: ModuleObjective(net, loss, INPUTS.to(dtype), LABELS),
        num_clients=1,
        strategy="fedavg",
        num_rounds=2,
        settings=settings,
    )
    assert seen == {dtype}
    assert result.x.dtype == torch.float32
    assert result.final_value is not None
    assert result.initial_value is not None
    assert result.final_value < result.initial_value


def test_inputs_of_another_type_than_the_module_decide() -> None:
    """As ever; frozen parameters and running statistics go along."""
    net = network(norm=True).float()
    objective = ModuleObjective(net, LOSS, INPUTS, LABELS)
    x = flatten_parameters(net).double()
    assert objective.value(x).dtype == torch.float64


def test_embeddings_take_whole_numbers() -> None:
    net = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 3))
    net[0].requires_grad_(False)
    words = torch.arange(12).reshape(6, 2) % 7
    objective = ModuleObjective(net, LOSS, words, LABELS)
    assert objective.dim == 27
    x = flatten_parameters(net)
    assert float(objective.value(x)) == pytest.approx(float(objective.value(x.double())), rel=1e-6)
    flipped = objective.flipped().targets
    assert flipped.tolist() == [2, 1, 0, 2, 1, 0]


class Clamping(nn.Module):
    """Writes into its weight whenever it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.clamp_(max=0.5)
        return inputs @ self.weight


def test_modules_that_write_into_x_are_refused() -> None:
    inputs, targets = torch.ones(2, 3), torch.zeros(2)
    objective = ModuleObjective(Clamping(), nn.functional.mse_loss, inputs, targets)
    with torch.no_grad(), pytest.raises(ObjectiveError, match="writes into the parameters that it"):
        objective.value(torch.ones(1, 3))
    tokens = torch.zeros(2, 1, dtype=torch.int64)
    embedding = nn.Embedding(3, 2, max_norm=1.0)
    with pytest.raises(ConfigError, match=r"max_norm of Embedding=1.0 must be None: it writes"):
        ModuleObjective(embedding, nn.functional.mse_loss, tokens, torch.zeros(2, 1, 2))

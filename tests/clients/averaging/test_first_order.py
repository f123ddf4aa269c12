"""The rule of FedAvg: torch's own SGD is the reference, also for minibatches and compiled."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from worlds import World, ask_once, clients_of

from clients.averaging.first_order import FirstOrderConfig
from clients.core.local import minibatches
from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.objective import CallableObjective, ModuleObjective, TorchObjective
from fedzo.protocol.exchange import Moment, Replies
from fedzo.protocol.questions import FirstOrderSteps
from fedzo.protocol.questions.training_config import MinibatchConfig
from fedzo.randomness import permutations
from scenarios.problems.mlp_cohort import MLPShards, mlp_dim

LAYERS = (3, 4, 2)
SIZES = (6, 9, 4)


class Shards:
    """Three clients with 6, 9 and 4 examples, as a stacked cohort."""

    noise_std = 0.0

    def __init__(self) -> None:
        total = sum(SIZES)
        self.inputs = torch.linspace(-1, 1, total * 3, dtype=torch.float64).reshape(total, 3).sin()
        self.labels = torch.arange(total) % 2
        self.offsets = torch.tensor([0, 6, 15])

    def cohort(self, client_ids, problem: int) -> MLPShards:  # type: ignore[no-untyped-def]
        ids = list(client_ids)
        return MLPShards(
            inputs=self.inputs,
            targets=self.labels,
            offsets=self.offsets[ids],
            sizes=torch.tensor([SIZES[i] for i in ids]),
            layers=LAYERS,
        )


X = torch.linspace(-1, 1, mlp_dim(LAYERS), dtype=torch.float64)


def ask(world: World, ids=(0, 1, 2), steps: int = 5, x=X, **client: object) -> Replies:  # type: ignore[no-untyped-def]
    settings = FirstOrderConfig(**client)  # type: ignore[arg-type]
    question = FirstOrderSteps(x=x, settings=settings, local_steps=steps, local_lr=0.3)
    return ask_once(question, world, ids, seed=2, moment=Moment(0, 3))


def batches_of(cohort: CohortObjective, ids, steps: int, **config):  # type: ignore[no-untyped-def]
    return minibatches(clients_of(cohort, ids=ids), MinibatchConfig(**config), steps)


def module() -> torch.nn.Module:
    with torch.device("meta"):
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    net = net.to_empty(device="cpu").double()
    w1, b1, w2, b2 = X.split([12, 4, 8, 2])
    for parameter, value in zip(
        net.parameters(), (w1.reshape(3, 4).T, b1, w2.reshape(4, 2).T, b2), strict=True
    ):
        parameter.data.copy_(value)
    return net


def torchs_own(client: int, batch_size: int, steps: int, momentum: float) -> torch.Tensor:
    """Plain torch on the documented batches: epoch after epoch through keyed permutations."""
    net, shards = module(), Shards()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=momentum)
    size, first = SIZES[client], int(shards.offsets[client])
    orders = permutations(2, "minibatches", 0, 3, 0, clients=[client], size=size, count=20)[0]
    queue = torch.from_numpy(orders).flatten()
    for step in range(steps):
        rows = queue[step * batch_size : (step + 1) * batch_size] if batch_size else slice(0, size)
        optimizer.zero_grad()
        inputs, labels = shards.inputs[first : first + size], shards.labels[first : first + size]
        torch.nn.functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    parts = [p.detach().T.reshape(-1) if p.dim() > 1 else p.detach() for p in net.parameters()]
    return torch.cat(parts)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch_size", [0, 3, 4])
def test_it_is_torchs_sgd(batch_size: int, momentum: float) -> None:
    replies = ask(Shards(), batch_size=batch_size, momentum=momentum)
    for row in range(3):
        expected = torchs_own(row, batch_size, 5, momentum) - X
        torch.testing.assert_close(replies.tensors["update"][row], expected, rtol=1e-9, atol=1e-12)
    assert replies.counts["gradients"] == {0: 5, 1: 5, 2: 5}
    assert replies.counts["queries"] == {0: 0, 1: 0, 2: 0}
    assert replies.counts["num_examples"] == {0: 6, 1: 9, 2: 4}


def test_a_looped_module_gives_the_same() -> None:
    shards = Shards()

    def make(client: int) -> ModuleObjective:
        rows = slice(int(shards.offsets[client]), int(shards.offsets[client]) + SIZES[client])
        return ModuleObjective(
            module(), torch.nn.functional.cross_entropy, shards.inputs[rows], shards.labels[rows]
        )

    def flat(update: torch.Tensor) -> torch.Tensor:
        w1, b1, w2, b2 = update.split([12, 4, 8, 2])
        return torch.cat([w1.reshape(4, 3).T.reshape(-1), b1, w2.reshape(2, 4).T.reshape(-1), b2])

    stacked = ask(shards, batch_size=2).tensors["update"]
    start = torch.cat([p.detach().reshape(-1) for p in module().parameters()])
    looped = ask(make, batch_size=2, x=start)
    for row in range(3):
        torch.testing.assert_close(flat(looped.tensors["update"][row]), stacked[row])


def test_batches_do_not_depend_on_company() -> None:
    shards = Shards()
    together = batches_of(shards.cohort([0, 1, 2], 0), [0, 1, 2], 4, batch_size=3)
    for client in range(3):
        alone = batches_of(shards.cohort([client], 0), [client], 4, batch_size=3)
        assert torch.equal(together[client], alone[0])
        assert int(together[client].max()) < SIZES[client]


def test_an_epoch_uses_every_example_once() -> None:
    rows = batches_of(Shards().cohort([0], 0), [0], 2, batch_size=3)
    assert sorted(rows.flatten().tolist()) == list(range(6))


def test_black_boxes_are_refused_with_a_remedy() -> None:
    def make(client: int) -> CallableObjective:
        return CallableObjective(function=lambda x: 1.0, dim=len(X))

    replies = ask(make, ids=[0])
    assert "use a zeroth-order strategy such as fedzo" in replies.failures[0]


def test_a_black_box_among_others_fails_alone() -> None:
    def make(client: int):  # type: ignore[no-untyped-def]
        if client == 1:
            return CallableObjective(function=lambda x: 1.0, dim=len(X))
        return TorchObjective(function=lambda x: x.square().sum(-1), dim=len(X))

    replies = ask(make)
    assert list(replies.client_ids) == [0, 2]
    assert list(replies.failures) == [1]


def test_looped_objectives_cannot_be_compiled() -> None:
    def make(client: int) -> TorchObjective:
        return TorchObjective(function=lambda x: x.square().sum(-1), dim=len(X))

    with pytest.raises(ConfigError, match="needs stacked objectives or torch modules"):
        ask(make, ids=[0], compile=True)


COMPILED = """
import sys, torch
torch.set_num_threads(1)
from scenarios import make_experiment, simulate
kind, project = sys.argv[1], sys.argv[2] == "True"
if kind == "modules":
    from torch import nn
    from fedzo import ModuleObjective, federate

    drawn = torch.Generator().manual_seed(0)
    def make(client):
        net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
        net[1].running_mean.fill_(0.1 * client)
        inputs = torch.randn(9 + client, 6, generator=drawn)
        labels = torch.randint(0, 3, (9 + client,), generator=drawn)
        return ModuleObjective(net.train(), nn.CrossEntropyLoss(), inputs, labels)
    clients = [make(client) for client in range(5)]
    ends = []
    for compile in (False, True):
        settings = {"client.compile": compile, "client.batch_size": 4, "client.momentum": 0.9,
                    "strategy.participation": 0.6, "client.project": project}
        result = federate(clients.__getitem__, num_clients=5, strategy="fedavg", num_rounds=3,
                          settings=settings)
        assert not result.records[-1].failures
        ends.append((result.x.double(), result.summary()["gradients"]))
    torch.testing.assert_close(ends[1][0], ends[0][0], rtol=1e-4, atol=1e-5)
    assert ends[0][1] == ends[1][1] > 0
    assert clients[0].module.training
    sys.exit()
bounded = {"scenario.dim": 30, "scenario.heterogeneity": 50.0, "strategy.local_lr": 0.1}
shards = {"scenario.dataset": "digits", "client.batch_size": 16}
ends = []
for compile in (False, True):
    settings = {**(bounded if kind == "quadratic" else shards), "client.compile": compile}
    if project:  # where there is a box
        settings["client.project"] = True
    result = simulate(make_experiment(kind, "fedavg", num_rounds=2, settings=settings))
    ends.append((result.x.double(), result.summary()["gradients"]))
tolerance = 1e-9 if kind == "quadratic" else 1e-4
torch.testing.assert_close(ends[1][0], ends[0][0], rtol=tolerance, atol=tolerance)
assert ends[0][1] == ends[1][1] > 0
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "project"),
    [
        ("quadratic", False),
        ("quadratic", True),
        ("classification", False),
        ("modules", False),
        ("modules", True),
    ],
)
def test_the_compiled_loop_agrees_with_the_eager_one(kind: str, project: bool) -> None:
    """In a process of its own: the type checks of the tests cannot be compiled."""
    command = [sys.executable, "-c", COMPILED, kind, str(project)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_a_client_without_examples_fails_alone() -> None:
    class WithEmpty(Shards):
        def cohort(self, client_ids, problem: int) -> MLPShards:  # type: ignore[no-untyped-def]
            return replace(super().cohort(client_ids, problem), sizes=torch.tensor([6, 0, 4]))

    replies = ask(WithEmpty(), batch_size=2)
    assert list(replies.client_ids) == [0, 2]
    assert replies.failures == {1: "the client has no examples"}


def test_cohorts_of_examples_are_recognized() -> None:
    assert not hasattr(cohort_of([TorchObjective(function=lambda x: x.sum(-1), dim=2)]), "sizes")


def test_a_batch_above_the_shard_takes_every_example_once() -> None:
    """Clients of 2, 3 and 5 examples: as with all of them, in a list, stacked, in any company."""
    sizes = torch.tensor([2, 3, 5])
    inputs = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(10, 4)
    labels = torch.arange(10) % 3
    shards = MLPShards(
        inputs=inputs, targets=labels, offsets=sizes.cumsum(0) - sizes, sizes=sizes, layers=(4, 3)
    )
    x = torch.linspace(-1, 1, 15, dtype=torch.float64).expand(3, 1, 15)
    assert batches_of(shards, [0, 1, 2], 2, batch_size=6) is None
    batches = batches_of(shards, [0, 1, 2], 2, batch_size=4)
    assert batches[:2, 1].tolist() == [[0, 1, -1, -1], [0, 1, 2, -1]]
    assert sorted(batches[2].flatten().tolist()[:5]) == [0, 1, 2, 3, 4]
    part, whole = shards.minibatch(batches[:, 0]), shards.value(x)
    assert part.sizes.tolist() == [2, 3, 4]
    torch.testing.assert_close(part.value(x)[:2], whole[:2])
    norms = torch.full((3,), 0.1, dtype=torch.float64)
    clipped = [c.clipped_sums(x[:, 0], None, norms, 1 << 20).sums[:2] for c in (part, shards)]
    torch.testing.assert_close(*clipped)
    spans = zip((0, 2, 5), sizes.tolist(), strict=True)
    net = torch.nn.Linear(4, 3).double()
    loss = torch.nn.functional.cross_entropy
    looped = cohort_of(
        [ModuleObjective(net, loss, inputs[a : a + n], labels[a : a + n]) for a, n in spans]
    )
    own = looped.minibatch(batches[:, 0])  # type: ignore[attr-defined]
    assert own.sizes.tolist() == [2, 3, 4]
    assert torch.equal(own.value(x)[:2], looped.value(x)[:2])

"""Per-record clipped gradients: the closed form, mapped gradients, and opacus where it is there.

    python benchmarks/privacy.py

10 clients of 5,000 records, 26 features, 10 softplus units, one output (DIFF2 on a table), and
modules: of linear layers, and others, for which there is no closed form here. Milliseconds a round
of all clients, medians over repeats in which everybody runs in turn, and ratios of them. One torch
thread. opacus runs with ghost norms (grad_sample_mode="ghost") and with its per-sample gradients
(hooks); it knows gradients, not changes between two points.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedzo.objectives.cohort import cohort_of
from fedzo.objectives.looped_cohort import LoopedFiniteSums
from fedzo.objectives.objective import ModuleObjective, flatten_parameters
from fedzo.privacy.clipping import MAX_FLOATS, clipped_sums
from fedzo.randomness import stream
from scenarios.data.networks import load_parameters, make_cnn, random_mlp, random_module
from scenarios.problems.mlp_cohort import MLPShards

CLIENTS, RECORDS, LAYERS = 10, 5000, (26, 10, 1)


Work = Callable[[int], Any]


def compare(works: Mapping[str, Work], repeats: int) -> None:
    """Print the median of each work, after two calls to warm up; it gets the number of the call."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in (-1, -1, *range(repeats)):
        for name, work in works.items():
            begun = time.perf_counter()
            work(number)
            if number >= 0:
                times[name].append(1e3 * (time.perf_counter() - begun))
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    base = next(iter(medians.values()))
    for name, taken in medians.items():
        print(f"| {name} | {taken:.1f} | {base / taken:.1f} |", flush=True)


def shards() -> MLPShards:
    random, total = stream(0, "privacy benchmark"), CLIENTS * RECORDS
    return MLPShards(
        inputs=torch.from_numpy(random.standard_normal((total, LAYERS[0]))).float(),
        targets=torch.from_numpy(random.standard_normal(total)).float(),
        offsets=RECORDS * torch.arange(CLIENTS),
        sizes=torch.full((CLIENTS,), RECORDS),
        layers=LAYERS,
        loss="squared",
        activation="softplus",
    )


def trail(dim: int, count: int, like: Tensor) -> list[Tensor]:
    random = stream(1, "trail")
    steps = [0.01 * torch.from_numpy(random.standard_normal(dim)).float() for _ in range(count)]
    return [like + step for step in steps]


class Opaque(nn.Module):
    """A module of which fedzo does not know what it is made of."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x)
        return found


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(LAYERS[0], LAYERS[1]), nn.Softplus(), nn.Linear(LAYERS[1], 1))


def tabular(data: MLPShards, net: nn.Module) -> LoopedFiniteSums:
    """Return the same objectives as modules, one a client."""
    spans = [slice(i * RECORDS, (i + 1) * RECORDS) for i in range(CLIENTS)]
    parts = [
        ModuleObjective(net, _squared, data.inputs[s], data.targets[s].unsqueeze(1)) for s in spans
    ]
    return cohort_of(parts)  # type: ignore[return-value]


def each(objective: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the plain per-record gradients of an objective."""
    found: Callable[[Tensor, Tensor], Tensor] = torch.func.vmap(
        torch.func.grad(objective.record_loss), in_dims=(None, 0)
    )
    return found


def _squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


def by_opacus(mode: str, data: MLPShards, xs: list[Tensor]) -> Work:
    """Return a function that sums the clipped gradients of every client with opacus."""
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    net = network()
    ghost = mode == "ghost"
    module = (
        GradSampleModuleFastGradientClipping(net, max_grad_norm=1.0, use_ghost_clipping=True)
        if ghost
        else GradSampleModule(net)
    )

    def work(number: int) -> None:
        nn.utils.vector_to_parameters(xs[number], net.parameters())
        for client in range(CLIENTS):
            rows = slice(client * RECORDS, (client + 1) * RECORDS)
            module.zero_grad()
            errors = module(data.inputs[rows]) - data.targets[rows].unsqueeze(1)
            losses = errors.square().sum(dim=1)
            if not ghost:
                losses.mean().backward()
                grads = [p.grad_sample for p in net.parameters()]
                norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
                factors = (1 / norms).clamp(max=1.0)
                _ = [torch.einsum("i,i...", factors, g) for g in grads]
                continue
            losses.mean().backward(retain_graph=True)
            factors = module.get_clipping_coef().detach()
            module.disable_hooks()
            net.zero_grad()
            (losses * factors).sum().backward()
            module.enable_hooks()

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=31)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = shards()
    start = random_mlp(LAYERS, generator=stream(2, "start"))
    xs = [x.expand(CLIENTS, -1) for x in trail(len(start), given.repeats + 2, start)]
    norms = torch.ones(CLIENTS)
    looped, opaque = tabular(data, network()), tabular(data, Opaque(network()))
    everyone = torch.arange(RECORDS)

    def mapped(number: int) -> None:
        for own in looped.objectives:
            gradients = each(own)(xs[number][0], everyone)
            _ = (1 / gradients.norm(dim=1)).clamp(max=1.0) @ gradients

    def pieces(number: int) -> None:
        clipped_sums(opaque, xs[number], None, norms)

    def linear(number: int) -> None:
        clipped_sums(looped, xs[number], None, norms)

    def linear_change(number: int) -> None:
        clipped_sums(looped, xs[number + 1], xs[number], norms)

    def mapped_change(number: int) -> None:
        for own in looped.objectives:
            now, before = (each(own)(xs[k][0], everyone) for k in (number + 1, number))
            changes = now - before
            _ = (1 / changes.norm(dim=1)).clamp(max=1.0) @ changes

    def closed(number: int) -> None:
        data.memo._kept.clear()
        data.memo._floats = 0
        data.clipped_sums(xs[number], None, norms, MAX_FLOATS)

    def closed_change(number: int) -> None:
        data.clipped_sums(xs[number + 1], xs[number], norms, MAX_FLOATS)

    print("| gradients of 10 x 5,000 records, 26-10-1 | ms | times faster |\n|---|---|---|")
    works: dict[str, Work] = {
        "vmap(grad)": mapped,
        "modules of unknown parts: vmap(grad) in pieces": pieces,
        "modules of linear layers: closed form": linear,
        "all clients at once: closed form": closed,
    }
    if importlib.util.find_spec("opacus"):
        flat = [x[0].clone() for x in xs]
        works |= {f"opacus, {mode}": by_opacus(mode, data, flat) for mode in ("hooks", "ghost")}
    else:
        print("| opacus is not installed | | |")
    compare(works, given.repeats)
    print("\n| changes of them | ms | times faster |\n|---|---|---|")
    changes = {
        "vmap(grad) at both points": mapped_change,
        "modules of linear layers: closed form": linear_change,
        "all clients at once: closed form, passes kept": closed_change,
    }
    compare(changes, given.repeats)

    cnn = make_cnn(28, 10)
    x = random_module(cnn, generator=stream(3, "cnn"))
    load_parameters(cnn, x).requires_grad_(True)
    random = stream(4, "images")
    images = torch.from_numpy(random.standard_normal((200, 1, 28, 28))).float()
    labels = torch.from_numpy(random.integers(0, 10, 200))
    own = ModuleObjective(cnn, nn.functional.cross_entropy, images, labels)
    clients = cohort_of([own, own])
    x2 = flatten_parameters(cnn).expand(2, -1)

    def plain(_: int) -> None:
        for _ in range(2):
            gradients = each(own)(x2[0], torch.arange(200))
            factors = (1 / gradients.norm(dim=1)).clamp(max=1.0)
            _ = factors @ gradients

    def chunked(_: int) -> None:
        clipped_sums(clients, x2, None, torch.ones(2))

    print("\n| 2 x 200 images, CNN | ms | times faster |\n|---|---|---|")
    compare({"vmap(grad), all at once": plain, "fedzo, in pieces": chunked}, given.repeats)


if __name__ == "__main__":
    main()

"""Per-record clipped gradients: the closed form, mapped gradients, and opacus where it is there.

    python benchmarks/privacy.py

10 clients of 5,000 records, 26 features, 10 softplus units, one output (DIFF2 on a table), and
networks for which there is no closed form here. Medians in milliseconds a round of all clients, and
ratios in the same run. One torch thread. opacus runs with ghost norms (grad_sample_mode="ghost")
and with its per-sample gradients (hooks); it knows gradients, not changes between two points.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fedzo.cohort import LoopedFiniteSums, cohort_of
from fedzo.objective import ModuleObjective, flatten_parameters
from fedzo.privacy.clipping import MAX_FLOATS, clipped_sums
from fedzo.randomness import stream
from scenarios.mlp_cohort import MLPShards
from scenarios.networks import load_parameters, make_cnn, random_mlp, random_module

CLIENTS, RECORDS, LAYERS = 10, 5000, (26, 10, 1)


def milliseconds(work: Callable[[int], Any], repeats: int) -> float:
    """Return the median of a call, after two to warm up; it gets the number of the call."""
    work(-1)
    work(-1)
    times = []
    for number in range(repeats):
        begun = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times)


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


def tabular(data: MLPShards) -> LoopedFiniteSums:
    """Return the same objectives as modules, one a client."""
    net = nn.Sequential(nn.Linear(LAYERS[0], LAYERS[1]), nn.Softplus(), nn.Linear(LAYERS[1], 1))
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


def by_opacus(mode: str, data: MLPShards, xs: list[Tensor]) -> Callable[[int], None]:
    """Return a function that sums the clipped gradients of every client with opacus."""
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    net = nn.Sequential(nn.Linear(LAYERS[0], LAYERS[1]), nn.Softplus(), nn.Linear(LAYERS[1], 1))
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


def say(name: str, ms: float, base: float) -> None:
    print(f"| {name} | {ms:.1f} | {base / ms:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = shards()
    start = random_mlp(LAYERS, generator=stream(2, "start"))
    xs = [x.expand(CLIENTS, -1) for x in trail(len(start), given.repeats + 2, start)]
    norms = torch.ones(CLIENTS)
    looped = tabular(data)
    everyone = torch.arange(RECORDS)

    def mapped(number: int) -> None:
        for own in looped.objectives:
            gradients = each(own)(xs[number][0], everyone)
            _ = (1 / gradients.norm(dim=1)).clamp(max=1.0) @ gradients

    def pieces(number: int) -> None:
        clipped_sums(looped, xs[number], None, norms)

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

    print("| 10 x 5,000 records, 26-10-1 | ms | times faster |\n|---|---|---|")
    base = milliseconds(mapped, given.repeats)
    say("gradients: vmap(grad)", base, base)
    say(
        "gradients: vmap(grad) in pieces, as for other networks",
        milliseconds(pieces, given.repeats),
        base,
    )
    say("gradients: closed form", milliseconds(closed, given.repeats), base)
    if importlib.util.find_spec("opacus"):
        flat = [x[0].clone() for x in xs]
        for mode in ("hooks", "ghost"):
            ms = milliseconds(by_opacus(mode, data, flat), given.repeats)
            say(f"gradients: opacus, {mode}", ms, base)
    else:
        print("| opacus is not installed | | |")
    base = milliseconds(mapped_change, given.repeats)
    say("changes: vmap(grad) at both points", base, base)
    say("changes: closed form, passes kept", milliseconds(closed_change, given.repeats), base)

    cnn = make_cnn(28, 10)
    x = random_module(cnn, generator=stream(3, "cnn"))
    load_parameters(cnn, x)
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
    base = milliseconds(plain, given.repeats)
    say("vmap(grad), all at once", base, base)
    say("fedzo, in pieces", milliseconds(chunked, given.repeats), base)


if __name__ == "__main__":
    main()

"""A step of MeZO against two forward passes, on an encoder of MiniLM's size; a federation of 10^8.

    python benchmarks/zeroth_order.py            # three minutes

The encoder has 6 layers of width 384 and 22.6 million numbers with random weights, so nothing is
downloaded; a batch is 16 or 64 rows of 27 tokens. CPU seconds of one thread, medians of seven
alternating runs; memory is the peak of the resident set (Linux). The federation: four clients that
share a module of 10^8 numbers, ten rounds of `seed_scalar`, bytes a client and round as the wire
counts them.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import fedzo
from fedzo.estimation.in_place import InPlace
from fedzo.estimation.keys import Key

TOKENS, WIDTH, LAYERS, VOCABULARY = 27, 384, 6, 30_522
MIB = 1 << 20


class Encoder(nn.Module):
    """Word and place embeddings, and post-norm transformer layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(512, WIDTH)
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden.mean(dim=1)


class Layer(nn.Module):
    """Attention with 12 heads and a network of width 1,536."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(2)])
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        b, t, w = hidden.shape
        q, k, v = self.mix(hidden).view(b, t, 3, 12, w // 12).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / (w // 12) ** 0.5, dim=-1) @ v
        hidden = self.norms[0](hidden + self.out(mixed.transpose(1, 2).reshape(b, t, w)))
        return self.norms[1](hidden + self.down(nn.functional.gelu(self.up(hidden))))


def resident(name: str) -> int:
    """Return VmRSS or VmHWM in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def seconds(work) -> float:  # type: ignore[no-untyped-def]
    """Return the CPU seconds of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measure_step(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    module = Encoder()
    tokens = torch.randint(VOCABULARY, (batch, TOKENS), generator=generator)

    def loss() -> torch.Tensor:
        return module(tokens).square().mean()

    def two() -> None:
        with torch.no_grad():
            loss(), loss()

    optimizer = fedzo.ZerothOrder(module, 1e-9, method="zo_sgd")
    two(), optimizer.step(loss)
    peaks = []
    for work in (two, lambda: optimizer.step(loss)):
        Path("/proc/self/clear_refs").write_text("5")
        work()
        peaks.append(resident("VmHWM"))
    pairs = [(seconds(two), seconds(lambda: optimizer.step(loss))) for _ in range(7)]
    ratio = statistics.median(step / plain for plain, step in pairs)
    print(
        f"batch {batch}: a step takes {ratio:.2f} times two forward passes"
        f" ({statistics.median(p for p, _ in pairs):.2f} s); peak memory"
        f" {peaks[1] / peaks[0]:.3f} times that of inference ({peaks[0] / MIB:.0f} MiB)"
    )


def measure_restore() -> None:
    module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    inputs = torch.ones(4, 64)
    place = InPlace(list(module.parameters()), lambda: module(inputs).sum())
    before = [p.detach().clone() for p in module.parameters()]
    for direction in range(1000):
        for side in (1.0, -1.0):
            place.at([(Key(seed=0, direction=direction), side * 2.0**-10)])
    same = all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    print(f"1,000 probes of both sides leave every bit: {same}")
    optimizer = fedzo.ZerothOrder(module, 1e-4, method="zo_sgd")
    for _ in range(1000):
        optimizer.step(lambda: module(inputs).square().mean())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        optimizer.log.save(path)
        print(f"log of 1,000 steps: {path.stat().st_size:,} bytes")


def measure_federation() -> None:
    shared = nn.Sequential(
        nn.Linear(5000, 10_000), nn.ReLU(), nn.Linear(10_000, 4999), nn.ReLU(), nn.Linear(4999, 10)
    )
    inputs, targets = torch.randn(8, 5000), torch.arange(8)

    def client(number: int) -> fedzo.ModuleObjective:
        part = slice(2 * number, 2 * number + 2)
        return fedzo.ModuleObjective(
            shared, nn.functional.cross_entropy, inputs[part], targets[part]
        )

    began = time.monotonic()
    result = fedzo.federate(
        client,
        strategy="seed_scalar",
        num_clients=4,
        num_rounds=10,
        settings={"strategy.evaluate_every": 0},
    )
    last = result.records[-1]
    count = sum(p.numel() for p in shared.parameters())
    print(
        f"{count:,} numbers, 4 clients, 10 rounds: {time.monotonic() - began:.0f} s,"
        f" bytes a client and round, with those for judging the first and the last x:"
        f" up {last.bytes_up / 40:.0f}, down {last.bytes_down / 40:.0f};"
        f" peak of the process {resident('VmHWM') / MIB:.0f} MiB"
    )


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    for batch in (16, 64):
        measure_step(batch)
    measure_restore()
    measure_federation()


if __name__ == "__main__":
    main()

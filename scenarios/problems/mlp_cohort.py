"""MLP losses of a whole cohort in one tensor program.

Clients differ in their parameters and in their examples, so a layer of n clients is one batched
matrix product: x [n, q, d], inputs [n, b, i] -> losses [n, q].

    cross_entropy:  -log softmax(f(x; a))_y        y a class number
    squared:        (f(x; a) - y)^2                y a number, one output

Records' clipped gradients are summed without forming them (fedzo.privacy.layers). What a pass has
found at a point is kept for the next question, in which that point is the previous one: then the
change of all gradients costs one pass, as a gradient does. Memory for that: the layers' inputs and
slopes, 4 (h + 2 o + h) bytes a record for h hidden units and o outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedzo.privacy.clipping import Clipped
from fedzo.privacy.layers import Layer, clipped_sums_of
from scenarios.data.networks import (
    ActivationName,
    activate,
    activation_slope,
    mlp_forward,
    mlp_parameters,
)
from scenarios.problems.mlp_memo import LayersMemo

LossName = Literal["cross_entropy", "squared"]
_FREE = float("inf")
_TOGETHER = 1 << 24
"""Floats of clients' examples, 64 MB, that are copied to be one program: 1.6 to 14 times faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MLPBatches:
    """The losses on one batch for each client: inputs [n, b, i], targets [n, b].

    squares: |inputs|^2 where that is known already. counted: which examples are there, where some
    clients have fewer than b; the others weigh nothing.
    """

    inputs: Float[Tensor, "n b i"]
    targets: Tensor
    layers: tuple[int, ...]
    loss: LossName = "cross_entropy"
    activation: ActivationName = "relu"
    squares: Float[Tensor, "n b"] | None = None
    counted: Bool[Tensor, "n b"] | None = None
    failures: dict[int, str] = field(default_factory=dict)
    lower: float = -_FREE
    upper: float = _FREE

    @property
    def num_clients(self) -> int:
        return len(self.inputs)

    @property
    def dim(self) -> int:
        return mlp_dim(self.layers)

    @property
    def sizes(self) -> Int[Tensor, " n"]:
        if self.counted is not None:
            return self.counted.sum(dim=1)
        size = self.inputs.shape[1]
        return torch.full((len(self.inputs),), size, device=self.inputs.device)

    def value(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]:
        losses = self.losses(x)
        if self.counted is None:
            return losses.mean(-1)
        there = losses.where(self.counted.unsqueeze(1), 0)
        return there.sum(-1) / self.sizes.clamp(min=1).unsqueeze(1)

    def losses(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q b"]:
        """Return the loss of every example at every point."""
        outputs = mlp_forward(x, self.inputs.unsqueeze(1), self.layers, self.activation)
        return losses_of(outputs, self.targets.unsqueeze(1), self.loss)

    def passed(self, x: Float[Tensor, "n d"]) -> list[Layer]:
        """Return what every layer has seen of the batch, forward and backward, at one point."""
        parameters = mlp_parameters(x, self.layers)
        inputs, sums = [self.inputs], list[Tensor]()
        for weight, bias in parameters:
            if sums:
                inputs.append(activate(sums[-1], self.activation))
            # a W is four times slower here
            sums.append(torch.baddbmm(bias.mT, weight.mT, inputs[-1].mT).mT)
        slopes = [_output_slopes(sums[-1], self.targets, self.loss)]
        if self.counted is not None:
            slopes[0] = slopes[0].where(self.counted.unsqueeze(-1), 0)
        for (weight, _), z in zip(parameters[:0:-1], sums[-2::-1], strict=True):
            back = (weight @ slopes[-1].mT).mT
            slopes.append(back.mul_(activation_slope(z, self.activation)))
        seen = [Layer(a, e) for a, e in zip(inputs, slopes[::-1], strict=True)]
        return [replace(seen[0], squares=self.squares), *seen[1:]]

    def clipped_sums(
        self,
        x: Float[Tensor, "n d"],
        previous: Float[Tensor, "n d"] | None,
        clip_norms: Float[Tensor, " n"],
        max_floats: int,
    ) -> Clipped:
        """Return sums over examples of clipped gradients at x, or of their changes."""
        before = None if previous is None else self.passed(previous)
        return _clipped(self.passed(x), before, clip_norms)


@dataclass(frozen=True, slots=True, kw_only=True)
class MLPShards:
    """The losses on all examples of each client: its `sizes[i]` rows from `offsets[i]`.

    memo: where passes are kept, by whoever makes these shards again for the same data.
    """

    inputs: Float[Tensor, "t i"]
    targets: Tensor
    offsets: Int[Tensor, " n"]
    sizes: Int[Tensor, " n"]
    layers: tuple[int, ...]
    loss: LossName = "cross_entropy"
    activation: ActivationName = "relu"
    memo: LayersMemo = field(default_factory=LayersMemo)
    failures: dict[int, str] = field(default_factory=dict)
    lower: float = -_FREE
    upper: float = _FREE

    @property
    def num_clients(self) -> int:
        return len(self.sizes)

    @property
    def dim(self) -> int:
        return mlp_dim(self.layers)

    def of(self, clients: Sequence[int]) -> "MLPShards":
        """Return the shards of these clients, with failures of their own."""
        ids = list(clients)
        return replace(self, offsets=self.offsets[ids], sizes=self.sizes[ids], failures={})

    def minibatch(self, indices: Int[Tensor, "n b"]) -> MLPBatches:
        rows = self.offsets.unsqueeze(1) + indices
        if torch.compiler.is_compiling() or not bool((indices < 0).any()):
            return self._batches(self.inputs[rows], self.targets[rows])
        rows = rows.where(indices >= 0, 0)  # any row does: it is not counted
        batches = self._batches(self.inputs[rows], self.targets[rows])
        return replace(batches, counted=indices >= 0)

    def labels_by_client(self) -> list[Tensor]:
        """Return the targets of each client's examples."""
        spans = zip(self.offsets.tolist(), self.sizes.tolist(), strict=True)
        return [self.targets[first : first + size] for first, size in spans]

    def flipped(self) -> "MLPShards":
        """Return the shards with every label y turned into C - 1 - y, a number into -y."""
        flipped = -self.targets if self.loss == "squared" else self.layers[-1] - 1 - self.targets
        return replace(self, targets=flipped)

    def value(self, x: Float[Tensor, "n q d"]) -> Float[Tensor, "n q"]:
        size = int(self.sizes[0])
        floats = self.num_clients * size * self.inputs.shape[1]
        if floats <= _TOGETHER and bool((self.sizes == size).all()):
            every = torch.arange(size, device=x.device).expand(self.num_clients, -1)
            return self.minibatch(every).value(x)
        return torch.cat([self._rows(i, 0).value(x[i : i + 1]) for i in range(self.num_clients)])

    def record_values(self, x: Float[Tensor, "n q d"]) -> list[Float[Tensor, "q m"]]:
        """Return the loss of each example of each client at its points."""
        rows = range(self.num_clients)
        return [self._rows(i, 0).losses(x[i : i + 1])[0] for i in rows]

    def clipped_sums(
        self,
        x: Float[Tensor, "n d"],
        previous: Float[Tensor, "n d"] | None,
        clip_norms: Float[Tensor, " n"],
        max_floats: int,
    ) -> Clipped:
        """Return sums over examples of clipped gradients at x, or of their changes."""
        sums, shortened = torch.zeros_like(x), x.new_zeros(len(x))
        for own, batch, key in self._parts(max_floats):
            passed = partial(
                self.memo.get,
                key,
                compute=batch.passed,
                data=self._data,
                most=max_floats,
            )
            before = None if previous is None else passed(previous[own])
            found = _clipped(passed(x[own]), before, clip_norms[own])
            sums[own] += found.sums
            shortened[own] += found.shortened
        return Clipped(sums, shortened)

    def _parts(self, max_floats: int) -> list[tuple[slice, MLPBatches, tuple[int, ...]]]:
        """Return pieces of the data that fit into the memory, whose they are, and their keys.

        Clients whose examples lie one behind the other, equally many, are one piece where they fit.
        """
        size, count = int(self.sizes[0]), self.num_clients
        width = 2 * sum(self.layers[1:])
        first = int(self.offsets[0])
        places = torch.arange(count, device=self.offsets.device)
        regular = torch.equal(self.offsets, first + size * places)
        if regular and bool((self.sizes == size).all()) and count * size * width <= max_floats:
            rows = slice(first, first + count * size)
            shape = (count, size)
            together = replace(
                self._batches(
                    self.inputs[rows].unflatten(0, shape), self.targets[rows].unflatten(0, shape)
                ),
                squares=self.memo.squares(self._data)[rows].unflatten(0, shape),
            )
            return [(slice(0, count), together, (first, count, size))]
        step = max(1, max_floats // width)
        return [
            (slice(i, i + 1), self._rows(i, begin, step), (int(self.offsets[i]) + begin, 1, step))
            for i in range(count)
            for begin in range(0, int(self.sizes[i]), step)
        ]

    @property
    def _data(self) -> tuple[Tensor, Tensor]:
        return self.inputs, self.targets

    def _rows(self, position: int, begin: int, count: int | None = None) -> MLPBatches:
        """Return examples of one client, all from `begin` on unless counted."""
        first, size = int(self.offsets[position]), int(self.sizes[position])
        end = size if count is None else min(size, begin + count)
        rows = slice(first + begin, first + end)
        return self._batches(self.inputs[rows].unsqueeze(0), self.targets[rows].unsqueeze(0))

    def _batches(self, inputs: Float[Tensor, "n b i"], targets: Tensor) -> MLPBatches:
        return MLPBatches(
            inputs=inputs,
            targets=targets,
            layers=self.layers,
            loss=self.loss,
            activation=self.activation,
            failures=self.failures,
        )


def _clipped(
    now: Sequence[Layer], before: Sequence[Layer] | None, clip_norms: Float[Tensor, " n"]
) -> Clipped:
    """Return clipped sums of what the layers have seen at one point, or of its change from one."""
    layers, shortened = clipped_sums_of(now, before, clip_norms)
    parts = [part for matrix, bias in layers for part in (matrix.mT.flatten(-2), bias)]
    return Clipped(torch.cat(parts, dim=-1), shortened)


def mlp_dim(layers: Sequence[int]) -> int:
    """Return the number of parameters of an MLP with these layer sizes."""
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(layers))


def losses_of(outputs: Float[Tensor, "*n c"], targets: Tensor, name: LossName) -> Tensor:
    """Return the loss of every example."""
    if name == "squared":
        return (outputs.squeeze(-1) - targets).square()
    labels = targets.expand(outputs.shape[:-1]).unsqueeze(-1)
    return outputs.logsumexp(-1) - outputs.gather(-1, labels).squeeze(-1)


def _output_slopes(outputs: Float[Tensor, "n b c"], targets: Tensor, name: LossName) -> Tensor:
    if name == "squared":
        return 2 * (outputs - targets.unsqueeze(-1))
    chosen = torch.nn.functional.one_hot(targets, outputs.shape[-1])
    return outputs.softmax(-1) - chosen

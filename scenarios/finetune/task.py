"""What is adapted, and to what: a network whose last layers are trained on labelled examples.

    network = prefix, module          examples = (prefix(raw inputs), classes)

The prefix is frozen, so what it makes of the examples is computed once and kept, and a pass costs
the trained layers alone (k of 6 layers of MiniLM: about k/6 of the whole). Layers are the parts of
a network with parameters, beside its head, which is always trained.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fedzo.errors import ConfigError
from fedzo.finetuning.adapters import ADAPTED, adapt_
from fedzo.objectives.modules import ModuleObjective, examples_at_once
from scenarios.data.partition import Partition, split
from scenarios.finetune.encoder import present

Part = tuple[str, nn.Module]
HEAD = "head"
_CHUNK = 64
"""Examples that are evaluated at once, unless they are large."""
_SORTED = 16
"""Batches within which examples are sorted by length."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs [n, ...] and their classes [n]."""

    inputs: Tensor
    targets: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Tensor | slice) -> "Examples":
        """Return the examples at these positions."""
        return Examples(self.inputs[indices], self.targets[indices])

    def on(self, device: torch.device | str) -> "Examples":
        """Return the examples on a device."""
        return Examples(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A network, which ends in `head`, and raw examples.

    layers: how many of the last layers are trained where nobody says. padded: whether inputs are
    sequences that are filled up with zeros. new_head: whether the head begins as the best one of
    the network as it is.
    """

    network: nn.Sequential
    train: Examples
    test: Examples
    layers: int
    padded: bool = False
    new_head: bool = False

    def on(self, device: torch.device | str) -> "Source":
        """Return the network, which is moved, and the examples on a device."""
        return replace(
            self,
            network=self.network.to(device),
            train=self.train.on(device),
            test=self.test.on(device),
        )


@dataclass(frozen=True, slots=True)
class Score:
    """The mean loss and the share of examples whose class has the largest output."""

    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A module that is trained in place, and the examples, as the module takes them.

        inputs, targets = task.train_batch(indices)
        closure = lambda: task.losses(task.module(inputs), targets).mean()

    layers: the module's children that are trained, or have adapters, beside `head`.
    cached: the network's children that are not in the module, for their outputs are kept.
    """

    name: str
    module: nn.Sequential
    train: Examples
    test: Examples
    layers: tuple[str, ...]
    cached: tuple[str, ...]
    padded: bool

    def losses(
        self, outputs: Float[Tensor, "*q b c"], targets: Int[Tensor, "*q b"]
    ) -> Float[Tensor, "*q b"]:
        """Return each example's cross-entropy."""
        return -outputs.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Int[Tensor, " b"]]:
        """Return training examples, as long as the longest of them."""
        return self._cut(self.train.inputs[indices]), self.train.targets[indices]

    def batches(self, size: int, *, generator: np.random.Generator) -> list[Int[Tensor, " b"]]:
        """Return the training examples of an epoch in random batches, of similar length.

        The last examples, fewer than a batch, are left out.
        """
        order = torch.from_numpy(generator.permutation(len(self.train)))
        batches: list[Tensor] = []
        for some in order.split(_SORTED * size):
            if self.padded:
                lengths = present(self.train.inputs[some]).sum(1).cpu()
                some = some[lengths.argsort(stable=True)]
            batches += [batch for batch in some.split(size) if len(batch) == size]
        return [batches[i] for i in generator.permutation(len(batches)).tolist()]

    def outputs(
        self, examples: Examples, network: Callable[[Tensor], Tensor] | None = None
    ) -> Float[Tensor, "n c"]:
        """Return what the module, or what is in its place, makes of examples, without gradients."""
        return mapped(network or self.module, examples.inputs, padded=self.padded)

    def evaluate(
        self, examples: Examples, network: Callable[[Tensor], Tensor] | None = None
    ) -> Score:
        """Return how the module, or what is in its place, does on examples."""
        outputs = self.outputs(examples, network)
        hits = (outputs.argmax(-1) == examples.targets).double().mean()
        return Score(float(self.losses(outputs, examples.targets).mean()), float(hits))

    def accuracy(self, network: Callable[[Tensor], Tensor] | None = None) -> float:
        """Return the share of test examples that the module, or another network, gets right."""
        return self.evaluate(self.test, network).accuracy

    def objective(self, indices: Tensor | slice = slice(None)) -> ModuleObjective:
        """Return the loss on training examples as a function of the trained parameters."""
        some = self.train.take(indices)
        loss = torch.nn.functional.cross_entropy
        return ModuleObjective(self.module, loss, some.inputs, some.targets)

    def shards(
        self, num_clients: int, partition: Partition, *, generator: np.random.Generator
    ) -> list[Int[Tensor, " m"]]:
        """Return which training examples each client has."""
        labels = self.train.targets.cpu().numpy()
        return [
            torch.from_numpy(rows)
            for rows in split(labels, num_clients, partition, generator=generator)
        ]

    def _cut(self, inputs: Tensor) -> Tensor:
        return trimmed(inputs) if self.padded else inputs


def pose(name: str, source: Source, layers: int, *, adapters: int = 0, seed: int = 0) -> Task:
    """Return the task of training the last layers, -1 for as many as are suggested.

    adapters: the rank of those that are trained in place of the layers, drawn from the seed; 0 for
    none. Raises ConfigError where the network has fewer layers, or none that takes an adapter.
    """
    parts = dict(source.network.named_children())
    names, owned = list(parts), [name for name, p in parts.items() if [*p.parameters()]]
    below = owned[: owned.index(HEAD)]
    count = source.layers if layers < 0 else layers
    if count > len(below):
        raise ConfigError(
            f"layers={layers} exceeds the {len(below)} layers of {name}: {', '.join(below)}"
        )
    trained = below[len(below) - count :]
    place = names.index((trained or [HEAD])[0])
    prefix, module = (nn.Sequential(OrderedDict(some)) for some in _split(parts, place))
    padded = source.padded and count > 0
    train, test = (_passed(prefix, part, source.padded) for part in (source.train, source.test))
    if source.new_head:
        features = mapped(module[:-1], train.inputs, padded=padded)
        _set_head(parts[HEAD], logistic_head(features, train.targets))
    module.eval().requires_grad_(True)
    if adapters:
        taking = [n for n in trained if any(isinstance(p, ADAPTED) for p in parts[n].modules())]
        if not taking:
            raise ConfigError(
                f"adapters={adapters} are for linear layers and convolutions, and {name} has none"
                f" among those that are trained beside the head ({', '.join(trained) or 'none'});"
                " leave them out, or train more layers"
            )
        adapt_(module, rank=adapters, trained=[HEAD], seed=seed)
    return Task(
        name=name,
        module=module,
        train=train,
        test=test,
        layers=tuple(trained),
        cached=tuple(names[:place]),
        padded=padded,
    )


def mapped(
    network: Callable[[Tensor], Tensor], inputs: Tensor, *, padded: bool
) -> Float[Tensor, "n ..."]:
    """Return a network's outputs without gradients, computed in chunks of similar length."""
    count = len(inputs)
    order = torch.arange(count)
    if padded:
        order = present(inputs).sum(1).cpu().argsort(stable=True)
    outputs: Tensor | None = None
    with torch.no_grad():
        for rows in order.flip(0).split(examples_at_once(inputs, _CHUNK)):  # the longest first
            some = inputs[rows]
            found = network(trimmed(some) if padded else some)
            if outputs is None:
                outputs = found.new_zeros((count, *found.shape[1:]))
            if found.dim() == 3:
                outputs[rows, : found.shape[1]] = found
            else:
                outputs[rows] = found
    if outputs is None:
        raise ConfigError("there are no examples")
    return outputs


def trimmed(inputs: Tensor) -> Tensor:
    """Return padded sequences without what is padding in all of them."""
    return inputs[:, : int(present(inputs).sum(1).max())]


def logistic_head(
    features: Float[Tensor, "n h"], targets: Int[Tensor, " n"], penalty: float = 1.0
) -> tuple[Float[Tensor, "c h"], Float[Tensor, " c"]]:
    """Return weight and bias of the logistic regression of classes on features.

    min over W, b of  sum_i cross_entropy(W z_i + b, y_i) + penalty |W|^2 / 2
    """
    classes = int(targets.max()) + 1
    z = features.double()
    weight = z.new_zeros((classes, z.shape[1]), requires_grad=True)
    bias = z.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        outputs = z @ weight.T + bias
        loss = torch.nn.functional.cross_entropy(outputs, targets, reduction="sum")
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return weight.detach().to(features.dtype), bias.detach().to(features.dtype)


def _split(parts: dict[str, nn.Module], place: int) -> tuple[list[Part], list[Part]]:
    pairs = list(parts.items())
    return pairs[:place], pairs[place:]


def _set_head(head: nn.Module, fitted: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(head.parameters(), fitted, strict=True):
            parameter.copy_(value)


def _passed(prefix: nn.Sequential, examples: Examples, padded: bool) -> Examples:
    """Return examples as the prefix passes them on; as they are where it is empty."""
    if not len(prefix):
        return examples
    return Examples(mapped(prefix, examples.inputs, padded=padded), examples.targets)

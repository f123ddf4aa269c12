"""Which numbers of a module are moved: some of its trained parameters, where they are.

    x = all trained parameters, one after another;   a view = some of them, with their places in x

A direction's numbers belong to places in x, so a view of a layer is moved by the numbers that the
whole module would have there: blocks, shards and the order in which they are asked change no bits.
"""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.objectives.modules import named_trained


@dataclass(frozen=True, slots=True)
class View:
    """Tensors of a module, each with its name and the place in x of its first number.

    total: how many numbers x has.
    """

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    firsts: tuple[int, ...]
    total: int

    @classmethod
    def of_module(cls, module: nn.Module) -> "View":
        """Return all trained parameters; tied ones once.

        Raises ConfigError where there are none.
        """
        return cls.of_named(dict(named_trained(module)), type(module).__name__)

    @classmethod
    def of_named(cls, named: dict[str, Tensor], owner: str = "module") -> "View":
        """Return tensors by name, in this order."""
        if not named:
            raise ConfigError(
                f"all parameters of the {owner} are frozen, so there is nothing to train; call"
                " requires_grad_(True) on those that are to be trained"
            )
        for name, tensor in named.items():
            lazy = isinstance(tensor, UninitializedParameter)
            told = "initialized; call the module on a batch first"
            require(not lazy, f"parameter {name!r}", "of no shape yet", told)
        sizes = [tensor.numel() for tensor in named.values()]
        firsts = [0, *accumulate(sizes)]
        return cls(tuple(named), tuple(named.values()), tuple(firsts[:-1]), firsts[-1])

    def __len__(self) -> int:
        return len(self.tensors)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors)

    @property
    def dim(self) -> int:
        """How many numbers the view moves."""
        return sum(tensor.numel() for tensor in self.tensors)

    def select(self, *patterns: str) -> "View":
        """Return the tensors whose names match one of the patterns (`layers.5.*`), or lie below it.

        Raises ConfigError for a pattern that matches nothing.
        """
        for pattern in patterns:
            if not any(matches(name, [pattern]) for name in self.names):
                raise ConfigError(
                    f"view={pattern!r} matches none of the trained parameters, which are"
                    f" {_few(self.names)}; * stands for anything, and a module's name for all in it"
                )
        return self.where(lambda name, _: matches(name, patterns))

    def where(self, chosen: Callable[[str, Tensor], bool]) -> "View":
        """Return the tensors that are chosen by name and content."""
        kept = [i for i, name in enumerate(self.names) if chosen(name, self.tensors[i])]
        return View(
            tuple(self.names[i] for i in kept),
            tuple(self.tensors[i] for i in kept),
            tuple(self.firsts[i] for i in kept),
            self.total,
        )

    def blocks(self, count: int) -> "list[View]":
        """Cut the view between layers into at most `count` parts of about equal size, in order.

        Parameters that were given without names, so that they have numbers, are layers each.
        """
        layers = list(dict.fromkeys(map(_layer_of, self.names)))
        sizes = {layer: self.where(_in_layer(layer)).dim for layer in layers}
        share, reached = max(1, -(-self.dim // count)), 0
        groups: dict[int, list[str]] = {}
        for layer in layers:
            middle = reached + sizes[layer] // 2
            groups.setdefault(min(count - 1, middle // share), []).append(layer)
            reached += sizes[layer]
        return [self.where(_in_layers(group)) for group in groups.values()]


def _in_layer(layer: str) -> Callable[[str, Tensor], bool]:
    return _in_layers([layer])


def _in_layers(layers: Sequence[str]) -> Callable[[str, Tensor], bool]:
    return lambda name, _: _layer_of(name) in layers


def _layer_of(name: str) -> str:
    return name if name.isdigit() else name.rpartition(".")[0]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name fits one of the patterns (`layers.5.*`), or lies below it."""
    return any(fnmatch.fnmatchcase(name, p) or name.startswith(f"{p}.") for p in patterns)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown}, ... ({len(names)} in all)"

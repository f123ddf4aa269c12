"""A few numbers beside a network that stays as it is: adapters of low rank, and rows of a table.

    linear layer:   y = W x + b + scale B (A x),   A [rank, in] drawn, B [out, rank] = 0 at first
    convolution:    of weight W + scale B A,       in: numbers of W that an output channel reads
    embedding:      rows of chosen tokens, all others as they are

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang & Chen, "LoRA: Low-Rank Adaptation of Large Language
Models", ICLR 2022, equation 3; tokens as in textual inversion (Gal et al., ICLR 2023), which ZOODiP
trains by values. `scale` is the paper's alpha / r. Differs: A is N(0, 1 / in), from a seed, and
convolutions have adapters too, whose product is added to their weight, whatever their groups.
What is trained has few numbers, so a step by values has less noise, and what is told of a run is
small; any optimizer takes it, for all else is frozen.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fedzo.config import require
from fedzo.errors import ConfigError
from fedzo.estimation.keys import Key
from fedzo.estimation.view import matches
from fedzo.finetuning.replacing import replace_, require_matches

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
ADAPTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers that take an adapter."""
_FORWARDS = {nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward}


class LowRank(nn.Module):
    """A linear layer that is frozen, and a product of two small ones beside it."""

    inner: nn.Linear | Convolution

    def __init__(
        self, layer: nn.Linear | Convolution, *, rank: int, scale: float, key: Key
    ) -> None:
        super().__init__()
        self.inner, self.scale = layer, scale
        held = layer.weight
        size, width = len(held), held[0].numel()
        drawn = key.draw(0, rank * width).view(rank, width) * width**-0.5
        self.down = nn.Parameter(drawn.to(held))
        self.up = nn.Parameter(held.new_zeros(size, rank))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return W x + b + scale B (A x)."""
        small = nn.functional.linear(inputs, self.down)
        out: Tensor = self.inner(inputs)
        return out + self.scale * nn.functional.linear(small, self.up)

    @property
    def weight(self) -> Float[Tensor, "out ..."]:
        """The weights of the layer that does the same, for who reads them."""
        added = self.scale * self.up @ self.down
        return self.inner.weight + added.view(self.inner.weight.shape)

    @property
    def bias(self) -> Tensor | None:
        """The layer's own."""
        return self.inner.bias

    def require_mergeable(self) -> None:
        """Raise ConfigError for a layer of which a plain one would not do the same."""
        kind = type(self.inner)
        if "weight" not in self.inner._parameters and kind.forward is not nn.Linear.forward:
            raise ConfigError(
                f"{kind.__name__} has a forward of its own and weights that are made of others;"
                " take the parametrization off before adapters are merged"
            )

    def merged(self) -> nn.Linear | Convolution:
        """Return the layer that does the same; what was tied to its weights stays."""
        inner = self.inner
        if isinstance(inner, nn.Linear) and "weight" not in inner._parameters:  # weight_norm
            inner = nn.utils.skip_init(
                nn.Linear, inner.in_features, inner.out_features, self.bias is not None
            ).to(self.weight)
            inner.bias = self.bias
        inner.weight = nn.Parameter(self.weight.detach())
        return inner.requires_grad_(True)


class LowRankConvolution(LowRank):
    """A convolution that is frozen, with a product of two small matrices added to its weight.

    Raises ConfigError for a weight that is made of others, such as by weight_norm.
    """

    def __init__(self, layer: Convolution, *, rank: int, scale: float, key: Key) -> None:
        if "weight" not in layer._parameters:
            raise ConfigError(
                f"a {type(layer).__name__} has a weight that is made of others; take the"
                " parametrization off before it gets an adapter"
            )
        super().__init__(layer, rank=rank, scale=scale, key=key)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the layer does with the weight W + scale B A, in whatever way it pads."""
        inner, weight = self.inner, self.weight
        assert not isinstance(inner, nn.Linear)
        hooked = inner._forward_hooks or inner._forward_pre_hooks
        if type(inner).forward in _FORWARDS and not hooked:
            made: Tensor = inner._conv_forward(inputs, weight, inner.bias)
            return made
        shell = type(inner).__new__(type(inner))  # the layer itself stays, also for other threads
        vars(shell).update(vars(inner), _parameters={**inner._parameters, "weight": weight})
        out: Tensor = shell(inputs)
        return out

    def require_mergeable(self) -> None:
        """Accept every layer: its own weight is replaced."""


class Rows(nn.Module):
    """An embedding that is frozen but for the rows of some tokens.

    tokens: of which the rows are trained, in increasing order and each once, as in `rows`.
    """

    tokens: Int[Tensor, " k"]

    def __init__(self, embedding: nn.Embedding, tokens: Iterable[int]) -> None:
        super().__init__()
        given = [*tokens]
        if not all(isinstance(token, int) for token in given):
            raise ConfigError(f"tokens={given!r:.60} must be whole numbers of rows")
        chosen = sorted({*given})
        if not chosen or chosen[0] < 0 or chosen[-1] >= embedding.num_embeddings:
            raise ConfigError(
                f"tokens={chosen} must be one or more of the {embedding.num_embeddings} rows"
            )
        self.inner = embedding.requires_grad_(False)
        self.register_buffer("tokens", torch.tensor(chosen, device=embedding.weight.device))
        self.rows = nn.Parameter(embedding.weight.detach()[self.tokens].clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the rows of tokens [*n]."""
        place = torch.searchsorted(self.tokens, tokens).clamp_(max=len(self.tokens) - 1)
        known = (self.tokens[place] == tokens).unsqueeze(-1)
        return torch.where(known, self.rows[place], self.inner(tokens))


def adapt_(
    module: nn.Module,
    *,
    rank: int = 4,
    scale: float = 1.0,
    layers: Sequence[str] = ("*",),
    trained: Sequence[str] = (),
    seed: int = 0,
) -> nn.Module:
    """Give linear layers and convolutions adapters, and freeze all else.

    The module does what it did before. layers: patterns of names (`layer5`, `*.output`); where
    there are none, convolutions that are too narrow for the rank, or whose weight is made of
    others, get no adapter. trained: patterns of names of those that get none and are trained as
    they are, such as a head. Raises ConfigError, with nothing changed, for a pattern that matches
    nothing, a rank above a layer's width (of a convolution in g groups: out channels, or in / g
    times the kernel's numbers), for layers that are not initialized, and where there are adapters.
    """
    require_matches(module, [*layers, *trained])
    if any(isinstance(part, LowRank) for part in module.modules()):
        raise ConfigError(f"{type(module).__name__} has adapters already; merge_ them first")

    def made(name: str, layer: Any) -> nn.Module:
        lazy = isinstance(layer.weight, UninitializedParameter)
        require(not lazy, f"layer {name!r}", "of no shape yet", "initialized by a first call")
        most = _widest(layer.weight)
        require(1 <= rank <= most, "rank", rank, f"from 1 to {most}, by the widths of {name}")
        key = Key(seed=seed, parts=("adapters", name), law="gaussian")
        kind = LowRank if isinstance(layer, nn.Linear) else LowRankConvolution
        return kind(layer, rank=rank, scale=scale, key=key)

    def made_or_kept(name: str, layer: Any) -> nn.Module:
        return made(name, layer) if _is_asked(layer, rank) else layer

    asked = any(
        isinstance(part, ADAPTED) and _is_asked(part, rank)
        for name, part in module.named_modules()
        if not matches(name, trained)
    )
    make = made_or_kept if asked and tuple(layers) == ("*",) else made
    replace_(module, ADAPTED, make, patterns=layers, kept=trained)
    module.requires_grad_(False)
    for part in module.modules():
        if isinstance(part, LowRank):
            part.down.requires_grad_(True)
            part.up.requires_grad_(True)
    for name, parameter in module.named_parameters():
        if matches(name, trained):
            parameter.requires_grad_(True)
    return module


def _is_asked(layer: nn.Module, rank: int) -> bool:
    """Return whether a layer must take an adapter where nobody has named any.

    Not a convolution that is too narrow, or whose weight is made of others.
    """
    weight = layer._parameters.get("weight")
    if isinstance(layer, nn.Linear) or isinstance(weight, UninitializedParameter):
        return True
    return weight is not None and rank <= _widest(weight)


def _widest(weight: Tensor) -> int:
    """Return the highest rank of an adapter."""
    return min(len(weight), weight[0].numel())


def merge_(module: nn.Module) -> nn.Module:
    """Put adapters into the layers beside which they are: the module is as large as before.

    These layers can be trained again, as plain ones; what else `adapt_` froze stays frozen. Raises
    ConfigError, with nothing changed, for a layer with a forward and made weights of its own.
    """
    for part in module.modules():
        if isinstance(part, LowRank):
            part.require_mergeable()
    replace_(module, (LowRank,), lambda _, adapted: adapted.merged())
    return module

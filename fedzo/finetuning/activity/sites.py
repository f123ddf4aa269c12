"""Layers of a module whose outputs are perturbed, and the passes in which that happens.

    pass +   every site gives h + eps xi, and what it has read is kept
    pass -   every site gives h - eps xi, with the same xi

xi is of independent signs for every example, number and call, drawn by a key in the order of the
calls. The call whose outputs are those of the whole module is the head: it is never perturbed, as
the loss's derivative there is known. Memory: the sites' inputs, xi and gates
(fedzo.finetuning.activity.gates), which is what training by autograd keeps of these layers alone.
Chained layers are not perturbed either: a Linear reads each of them through an elementwise
function, and its derivative is carried across that by the weights, one link of the chain rule.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedzo.config import require
from fedzo.errors import ConfigError, FedzoWarning, ObjectiveError
from fedzo.estimation.view import matches
from fedzo.finetuning.activity.calls import Call, require_examples, version_of
from fedzo.finetuning.activity.gates import Gates
from fedzo.finetuning.activity.layers import (
    LAYERS,
    has_own_forward,
    require_one_input,
    require_supported,
    token_axes,
)
from fedzo.finetuning.activity.noise import Noise
from fedzo.objectives.modules import named_trained

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor | None]


class Sites:
    """The layers of a module that are trained by what their outputs do.

    names: all layers of a known kind with something to train, or patterns (`encoder.layer.5` stands
    for all in it). chained: further ones, which get their derivative from the one site that reads
    them. share_tokens: one xi for all tokens of an example, or positions of an image; None lets
    `ActivityZO` see how many numbers there are.
    Axis 0 of what every site gives must be the examples, one row each. Raises ConfigError for names
    that no such layer has, and for layers that cannot be sites.
    """

    def __init__(
        self,
        module: nn.Module,
        names: str | Sequence[str] | None = None,
        *,
        chained: str | Sequence[str] = (),
        share_tokens: bool = False,
    ) -> None:
        links = [chained] if isinstance(chained, str) else [*chained]
        wanted = [names] if isinstance(names, str) else names
        both = wanted if wanted is None else [*wanted, *links]
        self.layers = _selected(module, both)
        self._links = {*_selected(module, links)} if links else set()
        self.share_tokens = share_tokens
        _require_whole_ties(module, self.layers)
        self._head: int | None = None
        self._readers: dict[int, int] = {}
        self.numbers = 0
        """Numbers of an example at all perturbed sites, if no tokens are shared; once located."""
        self.spacing = 0.0
        """Between 1 and the next number of what sites give, at its coarsest; once located."""
        self._known = False
        self._called: list[str] | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that get gradients; tied ones once."""
        own = (p for layer in self.layers.values() for p in layer.parameters(recurse=False))
        return list(dict.fromkeys(p for p in own if p.requires_grad))

    def warn_of_unmoved(self, module: nn.Module) -> None:
        """Warn of parameters that are to be trained and belong to no site."""
        own = {id(parameter) for parameter in self.parameters}
        left = [name for name, p in named_trained(module) if id(p) not in own]
        if left:
            sentence = (
                f"{', '.join(left[:3] + ['...'] * (len(left) > 3))} stay as they are: ActivityZO"
                " trains Linear, Conv and Embedding layers; freeze what it leaves, or train it by"
                " another optimizer"
            )
            warnings.warn(sentence, FedzoWarning, stacklevel=3)

    @property
    def is_located(self) -> bool:
        """Whether a pass has shown which call is the head."""
        return self._known

    def locate(self, forward: Callable[[], Tensor]) -> None:
        """Find the head in a forward pass; raises ConfigError for a site that is not called."""
        given: list[Tensor] = []
        versions: list[int] = []
        copies: list[Tensor] = []  # of the last outputs, where torch does not count what is written
        called: list[str] = []
        read: list[tuple[Tensor, int]] = []

        def note(name: str, layer: nn.Module, inputs: tuple[Any, ...], outputs: Tensor) -> None:
            place = len(called)
            if isinstance(layer, nn.Linear) and not has_own_forward(layer):
                self._readers |= {own: place for tensor, own in read if tensor is inputs[0]}
            called.append(name)
            given.append(outputs)
            versions.append(version_of(outputs))
            copies[:] = [outputs.clone()] if outputs.is_inference() else []
            if name in self._links:
                gates.wait(outputs, lambda _, result: follow(result, place))
                follow(outputs, place)

        def follow(tensor: Tensor, place: int) -> None:
            gates.watch(tensor)
            read.append((tensor, place))

        self._readers = {}
        with Gates() as gates, self._hooked(note):
            outputs = forward()
        for tensor, place in read:
            alone = place in self._readers and gates.readers(tensor) == 1
            require(
                alone,
                f"chained layer {called[place]!r}",
                f"{gates.readers(tensor)} readers",
                "a layer that one Linear site reads, through one elementwise function, and nothing"
                " else; leave it out, or make it a site",
            )
        missing = sorted(set(self.layers) - {*called})
        require(
            not missing,
            "sites",
            missing,
            "layers that a forward pass calls; leave these out, or freeze them (a fused or compiled"
            " module does not call its parts)",
        )
        ends = (i for i, own in enumerate(given) if own is outputs)
        as_given = all(torch.equal(a.nan_to_num(), outputs.nan_to_num()) for a in copies)
        unchanged = (i for i in ends if versions[i] == version_of(outputs) and as_given)
        self._head = next(unchanged, None)
        self._called = called
        perturbed = (i for i in range(len(given)) if i != self._head and i not in self._readers)
        for name, each in zip(called, given, strict=True):
            require_examples(name, each.shape, len(outputs))
        self.numbers = sum(given[i][0].numel() for i in perturbed)
        kinds = {each.dtype for each in given if each.is_floating_point()}
        self.spacing = max(torch.finfo(kind).eps for kind in kinds)
        self._known = True

    def state(self) -> dict[str, Any]:
        """Return what a pass has shown."""
        shown = (self._known, self._head, self._readers, self.numbers, self.spacing)
        told = {"shown": list(shown), "share_tokens": self.share_tokens}
        return {**told, "called": self._called}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what a pass has shown before."""
        self._known, self._head, self._readers, self.numbers, self.spacing = state["shown"]
        self.share_tokens = state["share_tokens"]
        self._called = state.get("called")
        self._known = self._known and self._called is not None  # an earlier release's head is not

    @contextmanager
    def read(self, noise: Noise | None = None, eps: float = 0.0) -> Iterator[list[Call]]:
        """Keep what the sites read; with noise, add eps xi to what they give."""
        calls: list[Call] = []

        def keep(name: str, layer: nn.Module, given: tuple[Any, ...], outputs: Tensor) -> Tensor:
            require_one_input(name, layer, given)
            shared = token_axes(layer, outputs) if self.share_tokens else ()
            call = Call(name, layer, given[0], outputs.shape, shared)
            call.version = version_of(call.inputs)
            call.is_head = len(calls) == self._head
            call.reader = self._readers.get(len(calls))
            calls.append(call)
            if call.is_head:
                return outputs
            if noise is not None and call.is_perturbed:
                drawn = noise.take(call.grain.numel(), outputs.device)
                call.noise = drawn.view(call.grain).to(outputs.dtype)
                outputs = torch.add(outputs, call.noise, alpha=eps)
            gates.wait(outputs, lambda gate, _: setattr(call, "gate", gate))
            return outputs

        with Gates() as gates, self._hooked(keep):
            yield calls
        names = [call.name for call in calls]
        placed = self._head is not None or self._readers  # by numbers of calls
        if placed and self._called != names:
            raise ConfigError(
                f"a forward pass called the sites {_few(names)}, and the first one"
                f" {_few(self._called or [])}; ActivityZO knows layers by the order in which they"
                " are called, so give inputs of one length, and leave out layers that some passes"
                " skip"
            )

    @contextmanager
    def mirrored(self, calls: Sequence[Call], eps: float) -> Iterator[None]:
        """Subtract eps times the noise that was added before.

        The head's inputs become the mean of both sides, so its gradient is exact to O(eps^2).
        Raises ObjectiveError where the second pass calls other layers.
        """
        left = list(reversed(calls))

        def subtract(name: str, _layer: nn.Module, given: tuple[Any, ...], outputs: Tensor) -> Any:
            call = left.pop() if left else None
            if call is None or call.name != name or call.shape != outputs.shape:
                raise ObjectiveError(
                    f"two forward passes on one batch call different layers ({name!r} in the"
                    " second); a closure must do the same whenever it is called"
                )
            if call.is_head:
                call.inputs = (call.inputs + given[0]) / 2
                call.version = version_of(call.inputs)
            return outputs if call.noise is None else torch.sub(outputs, call.noise, alpha=eps)

        with self._hooked(subtract):
            yield

    @contextmanager
    def _hooked(
        self, act: Callable[[str, nn.Module, tuple[Any, ...], Tensor], Any]
    ) -> Iterator[None]:
        """Let `act` see every call of a site; what it returns takes the place of the outputs."""

        def hook_of(name: str) -> Hook:
            return lambda layer, given, named, outputs: act(
                name, layer, (*given, *named.values()), outputs
            )

        handles = [
            layer.register_forward_hook(hook_of(name), with_kwargs=True)
            for name, layer in self.layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _selected(module: nn.Module, patterns: Sequence[str] | None) -> dict[str, nn.Module]:
    """Return the layers that are meant, by name."""
    attention = [n for n, part in module.named_modules() if isinstance(part, nn.MultiheadAttention)]
    known = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, LAYERS) and name.rpartition(".")[0] not in attention
    }
    for pattern in patterns or ():
        if not any(matches(name, [pattern]) for name in known):
            inside = [name for name in attention if matches(name, [pattern]) or name in pattern]
            why = "; nn.MultiheadAttention reads its projections without calling them" * bool(
                inside
            )
            raise ConfigError(
                f"sites={pattern!r} names no Linear, Conv or Embedding layer{why}; there are"
                f" {', '.join(known) or 'none'}"
            )
    layers: dict[str, nn.Module] = {
        name: layer
        for name, layer in known.items()
        if (patterns is None or matches(name, patterns))
        and any(p.requires_grad for p in layer.parameters(recurse=False))
    }
    require(
        bool(layers),
        "sites",
        patterns,
        "Linear, Conv or Embedding layers with parameters of their own, not frozen (adapters are"
        " none: fedzo.ZerothOrder trains those)",
    )
    for name, layer in layers.items():
        require_supported(name, layer)
    return layers


def _require_whole_ties(module: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Raise ConfigError where a parameter of a site is read by a module that is none."""
    ours = {id(p) for layer in layers.values() for p in layer.parameters() if p.requires_grad}
    for name, part in module.named_modules():
        tied = [p for p in part.parameters(recurse=False) if id(p) in ours]
        require(
            not tied or name in layers,
            "sites",
            list(layers),
            f"with {name!r} too, which shares a parameter with one of them",
        )


def _few(names: Sequence[str]) -> str:
    """Return some names, and how many there are."""
    more = ", ..." * (len(names) > 4)
    return f"{', '.join(names[:4])}{more} ({len(names)} calls)"

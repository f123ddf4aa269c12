"""What a layer's parameters get from a derivative at its outputs, without a backward pass.

    linear       grad W = sum_it delta_it x_it^T,             grad b = sum_it delta_it
    convolution  grad W = the correlation of inputs with delta, grad b = sum_ip delta_ip
    embedding    grad W[v] = sum of delta_it over the places where token v is
    a subclass   with a forward of its own: autograd, through that layer alone

Shapes: inputs [b, ..., k] (convolution [b, k, ...], embedding [b, ...] of numbers), delta as the
layer's outputs, [b, ..., n] or [b, n, ...]. A delta whose token axes have length 1 stands for the
same numbers at every token. Cost: one matrix product, half of a layer's backward pass.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fedzo.config import require
from fedzo.finetuning.activity.passes import unchanged_buffers

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS = (nn.Linear, *_CONVOLUTIONS, nn.Embedding)
"""The kinds of layers that may be sites, with their subclasses."""
_FORWARDS = {kind.forward for kind in LAYERS}


def require_supported(name: str, layer: nn.Module) -> None:
    """Raise ConfigError for a layer whose gradients are not those of this module."""
    require(
        isinstance(layer, LAYERS),
        f"site {name!r}",
        type(layer).__name__,
        "a Linear, Conv1d, Conv2d, Conv3d or Embedding (inside attention, use separate Linear"
        " projections)",
    )
    own = {id(layer.weight), id(layer.bias)} if not isinstance(layer, nn.Embedding) else None
    trained = [p for p in layer.parameters() if p.requires_grad]
    require(
        own is None or has_own_forward(layer) or all(id(p) in own for p in trained),
        f"site {name!r}",
        "reparametrized",
        "a layer whose weight is a parameter; remove the parametrization, or leave it out",
    )
    if isinstance(layer, nn.Embedding):
        plain = not (layer.sparse or layer.scale_grad_by_freq or layer.max_norm is not None)
        require(
            plain,
            f"site {name!r}",
            layer,
            "an Embedding without sparse, scale_grad_by_freq and max_norm",
        )


def has_own_forward(layer: nn.Module) -> bool:
    """Whether a layer, or its class, computes something else than torch's of its kind."""
    return "forward" in vars(layer) or type(layer).forward not in _FORWARDS


def require_one_input(name: str, layer: nn.Module, given: Sequence[object]) -> None:
    """Raise ConfigError for a layer with a forward of its own that is told more than its inputs."""
    require(
        len(given) == 1 or not has_own_forward(layer),
        f"site {name!r}",
        f"called with {len(given)} arguments",
        "called with its inputs alone, since its class has a forward of its own; leave it out",
    )


def token_axes(layer: nn.Module, outputs: Tensor) -> tuple[int, ...]:
    """Return the axes of a layer's outputs that are neither examples nor channels."""
    if isinstance(layer, _CONVOLUTIONS):
        return tuple(range(2, outputs.dim()))
    return tuple(range(1, outputs.dim() - 1))


def parameter_gradients(
    layer: nn.Module, inputs: Tensor, delta: Tensor, shape: torch.Size
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Return the gradient of sum(delta * outputs) for each trained parameter of a layer.

    shape: of the outputs, to which delta is expanded.
    """
    if has_own_forward(layer):
        yield from _of_own_forward(layer, inputs, delta.expand(shape))
        return
    if isinstance(layer, _CONVOLUTIONS):
        delta = delta.expand(shape)
    if isinstance(layer, nn.Embedding):
        yield from _of_embedding(layer, inputs, delta)
        return
    of_weight = _convolution_weight if isinstance(layer, _CONVOLUTIONS) else _linear_weight
    weight, bias = layer.weight, layer.bias
    if isinstance(weight, nn.Parameter) and weight.requires_grad:
        yield weight, of_weight(layer, inputs, delta)
    if isinstance(bias, nn.Parameter) and bias.requires_grad:
        yield bias, _bias(layer, inputs, delta)


def _of_own_forward(
    layer: nn.Module, inputs: Tensor, delta: Tensor
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Return what autograd says of one layer whose class has a forward of its own.

    Such a layer may pad or scale its inputs first, as convolutions of EfficientNet do. It is called
    once more, without a trace; what it draws at random, it draws anew.
    """
    trained = [p for p in layer.parameters(recurse=False) if p.requires_grad]
    if not trained:
        return
    devices = [inputs.device] if inputs.is_cuda else []
    quiet = torch.random.fork_rng(devices=devices)
    with torch.inference_mode(False), torch.enable_grad(), quiet, unchanged_buffers(layer):
        outputs = layer.forward(inputs.clone())
        found = torch.autograd.grad(outputs, trained, delta.clone(), allow_unused=True)
    for parameter, gradient in zip(trained, found, strict=True):
        if gradient is not None:
            yield parameter, gradient


def _linear_weight(_: nn.Module, inputs: Tensor, delta: Tensor) -> Tensor:
    if inputs.dim() > 2 and delta.shape[1:-1].numel() == 1:
        inputs = inputs.flatten(1, -2).sum(1)  # one delta for all tokens
    return delta.reshape(-1, delta.shape[-1]).T @ inputs.reshape(-1, inputs.shape[-1])


def _bias(layer: nn.Module, inputs: Tensor, delta: Tensor) -> Tensor:
    if isinstance(layer, _CONVOLUTIONS):
        return delta.flatten(2).sum((0, 2))
    times = inputs.shape[1:-1].numel() // delta.shape[1:-1].numel()
    return delta.reshape(-1, delta.shape[-1]).sum(0).mul_(times)


def _convolution_weight(layer: nn.Module, inputs: Tensor, delta: Tensor) -> Tensor:
    assert isinstance(layer, _CONVOLUTIONS)
    padding = list(layer.padding)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        around = layer._reversed_padding_repeated_twice
        inputs, padding = nn.functional.pad(inputs, around, mode=mode), [0] * len(layer.stride)
    weight: Tensor
    _, weight, _ = torch.ops.aten.convolution_backward(
        delta,
        inputs,
        layer.weight,
        None,
        list(layer.stride),
        padding,
        list(layer.dilation),
        False,
        [0] * len(layer.stride),
        layer.groups,
        [False, True, False],
    )
    return weight


def _of_embedding(
    layer: nn.Embedding, tokens: Tensor, delta: Tensor
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    weight = layer.weight
    if not isinstance(weight, nn.Parameter) or not weight.requires_grad:
        return
    rows = delta.expand(*tokens.shape, -1).reshape(-1, delta.shape[-1])
    whole = torch.zeros_like(weight, dtype=rows.dtype).index_add_(0, tokens.reshape(-1), rows)
    gradient = whole.to(weight.dtype)
    if layer.padding_idx is not None:
        gradient[layer.padding_idx] = 0
    yield weight, gradient

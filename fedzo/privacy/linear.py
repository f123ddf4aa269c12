"""Clipped sums of records' gradients of a module of linear layers, without any of the gradients.

A `Sequential` of `Linear` layers and functions of single numbers treats every record by itself, so
one pass over many of them gives what `fedzo.privacy.layers` needs: the inputs of each layer, and
the slopes of each record's loss. Other modules might mix records (normalize over the batch, say),
and then a record would move the gradients of others: they are not taken here.

Sequences, to every row of which a layer is applied, are taken where opacus is installed, for
gradients (not for changes), and while it costs less than the gradients themselves: t (i + o) <= i o
for t rows, i inputs and o outputs.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.objectives.objective import ModuleObjective, unflatten_parameters
from fedzo.privacy.layers import Layer, clipped_sums_of, knows_sequences

_ELEMENTWISE = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
)
_IDLE = (nn.Identity, nn.Dropout, nn.AlphaDropout)
"""Modules that do nothing in evaluation, in which objectives are."""


def sum_of_linear(
    objective: ModuleObjective,
    x: Float[Tensor, " d"],
    previous: Float[Tensor, " d"] | None,
    clip_norm: float,
    max_floats: int,
) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]] | None:
    """Return the sum of clipped gradients, or of changes, and how many records were shortened.

    None where the module is not made of linear layers, some are frozen or in half precision, or the
    short way would be a detour.
    """
    parts = _parts(objective.module) if objective.is_plain else None
    if not parts or objective.inputs.dim() < 2:
        return None
    total = torch.zeros_like(x)
    x, previous = objective.cast(x), None if previous is None else objective.cast(previous)
    probe = _pass(parts, objective, x, slice(0, 1))
    if not all(_is_shorter(layer, previous is not None) for layer in probe):
        return None
    points = 1 if previous is None else 2
    step = max(1, max_floats // (points * sum(_floats(layer) for layer in probe)))
    norms = torch.tensor([clip_norm], dtype=torch.float64, device=x.device)
    shortened = total.new_zeros(())
    for first in range(0, objective.num_examples, step):
        rows = slice(first, first + step)
        now = _pass(parts, objective, x, rows)
        before = None if previous is None else _pass(parts, objective, previous, rows)
        sums, count = clipped_sums_of(now, before, norms, into=total.dtype)
        flat = [
            part.flatten()
            for layer, (matrix, bias) in zip(now, sums, strict=True)
            for part in ((matrix, bias) if layer.bias else (matrix,))
        ]
        total += torch.cat(flat)
        shortened += count[0]
    return total, shortened


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Return named layers in the order in which they are applied; None where others are among them.

    Subclasses are others, for they may do anything, and so are layers that are applied twice.
    """
    if type(module) is not nn.Sequential:
        return None
    found: list[tuple[str, nn.Module]] = []
    for name, part in module._modules.items():
        assert part is not None
        inner = [("", part)] if type(part) is not nn.Sequential else _parts(part)
        if inner is None:
            return None
        found += [(f"{name}.{deeper}" if deeper else name, one) for deeper, one in inner]
    linear = [part for _, part in found if type(part) is nn.Linear]
    rest = [part for _, part in found if type(part) is not nn.Linear]
    own = [id(p) for part in linear for p in (part.weight, part.bias) if p is not None]
    plain = sorted(own) == sorted(id(p) for p in module.parameters())
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    return found if plain and not hooked and all(_is_harmless(part) for part in rest) else None


def _is_harmless(part: nn.Module) -> bool:
    if type(part) is nn.Flatten:
        return bool(part.start_dim == 1 and part.end_dim == -1)
    return type(part) in (*_ELEMENTWISE, *_IDLE)


def _pass(
    parts: list[tuple[str, nn.Module]], objective: ModuleObjective, x: Tensor, rows: slice
) -> list[Layer]:
    """Return what the linear layers see of some records, forward and backward."""
    state = unflatten_parameters(objective.module, x.detach())
    value, inputs, sums = objective.inputs[rows], [], []
    with torch.enable_grad():
        for name, part in parts:
            if type(part) is nn.Linear:
                inputs.append(value.detach())
                value = nn.functional.linear(
                    value, state[f"{name}.weight"], state.get(f"{name}.bias")
                )
                sums.append(value.requires_grad_(True))
            elif type(part) not in _IDLE:
                value = part(value.clone() if getattr(part, "inplace", False) else value)
        # each loss is that of a batch of one, as in ModuleObjective.record_loss
        alone = torch.func.vmap(objective.loss)
        losses = alone(value.unsqueeze(1), objective.targets[rows].unsqueeze(1))
        slopes = torch.autograd.grad(losses.sum(), sums)
    return [
        Layer(a.unsqueeze(0), e.unsqueeze(0), bias=f"{name}.bias" in state)
        for a, e, (name, _) in zip(
            inputs, slopes, [part for part in parts if type(part[1]) is nn.Linear], strict=True
        )
    ]


def _is_shorter(layer: Layer, changes: bool) -> bool:
    if layer.slopes.dim() == 3:
        return True
    if layer.slopes.dim() > 4 or changes or not knows_sequences():
        return False
    rows, ins, outs = layer.inputs.shape[2], layer.inputs.shape[-1], layer.slopes.shape[-1]
    return rows * (ins + outs) <= ins * outs


def _floats(layer: Layer) -> int:
    """Return the floats that a layer takes for one record."""
    grams = 2 * layer.slopes.shape[2] ** 2 if layer.slopes.dim() > 3 else 0
    return layer.inputs.numel() + layer.slopes.numel() + grams

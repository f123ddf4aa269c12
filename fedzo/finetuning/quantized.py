"""Linear layers with few-bit weights, of which only the scales are trained.

    W = scale_g q,   q whole numbers of `bits` bits that stay,   scale_g: one for each row and group

"Fine-tuning Quantized Neural Networks with Zeroth-order Optimization" (QZO), ICLR 2026
(2505.13430). Scales are absolute maxima over 2^(bits - 1) - 1, so a weight is off by half a scale
at most, and by what rounding in the module's own type adds. Memory of a weight: one byte, whatever
`bits` (torch packs no less), and a scale a group. Differs from the paper: symmetric rounding to
nearest instead of GPTQ or AQLM, which need calibration data.
"""

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from fedzo.config import require
from fedzo.finetuning.replacing import replace_


class QuantizedLinear(nn.Module):
    """A linear layer whose weights are whole numbers times trained scales."""

    levels: Int8[Tensor, "out groups size"]

    def __init__(self, linear: nn.Linear, *, bits: int = 4, group: int = 128) -> None:
        super().__init__()
        rows, columns = linear.weight.shape
        require(2 <= bits <= 8, "bits", bits, "from 2 to 8")
        require(group >= 1, "group", group, "at least 1")
        size = min(group, columns)
        require(columns % size == 0, "group", group, f"a divisor of the {columns} inputs")
        weight = linear.weight.detach().view(rows, columns // size, size)
        most = 2 ** (bits - 1) - 1
        exact = weight.float()
        scales = (exact.abs().amax(dim=2).clamp(min=1e-12) / most).to(weight.dtype)
        levels = (exact / scales.float().unsqueeze(2)).round().clamp(-most, most)
        self.register_buffer("levels", levels.to(torch.int8))
        self.scales = nn.Parameter(scales)
        held = None if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", held)

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The weights that the scales make of the levels."""
        return (self.levels * self.scales.unsqueeze(2)).flatten(1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return W x + b."""
        bias = self.get_buffer("bias") if self._buffers["bias"] is not None else None
        return nn.functional.linear(inputs, self.weight, bias)


def quantize_(module: nn.Module, *, bits: int = 4, group: int = 128) -> nn.Module:
    """Replace all linear layers of a module by quantized ones, and freeze everything but scales.

    Raises ConfigError where there is no linear layer, and for a group that does not fit.
    """
    replace_(module, (nn.Linear,), lambda _, one: QuantizedLinear(one, bits=bits, group=group))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.rpartition(".")[2] == "scales")
    return module

"""Tensors that go through Ray come back as they were."""

import pytest
import torch

from fedzo.runtime.ray.worker import to_arrays, to_tensors


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(2.5, dtype=torch.float64),
        torch.arange(3),
        torch.zeros(0, 4),
        torch.arange(6.0).view(2, 3).t(),
        torch.tensor(True),
    ],
    ids=lambda tensor: str(tuple(tensor.shape)),
)
def test_shape_type_and_bits_stay(tensor: torch.Tensor) -> None:
    back = to_tensors(to_arrays({"it": tensor}))["it"]
    assert back.shape == tensor.shape
    assert back.dtype == tensor.dtype
    assert torch.equal(back, tensor)
    assert back.is_contiguous()

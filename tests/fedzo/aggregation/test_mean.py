"""The mean, by hand and by law."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedzo.aggregation import mean
from fedzo.errors import ConfigError

V = torch.tensor([[0.0, 3.0], [6.0, 0.0], [3.0, 3.0]], dtype=torch.float64)


def test_by_hand() -> None:
    assert mean(V).tolist() == [3.0, 2.0]
    assert mean(V, weights=torch.tensor([2.0, 1.0, 0.0])).tolist() == [2.0, 2.0]


@given(st.permutations([0, 1, 2]), st.floats(-5, 5))
def test_permutation_and_translation(order: list[int], shift: float) -> None:
    assert torch.allclose(mean(V[order] + shift), mean(V) + shift)


def test_it_tolerates_nobody() -> None:
    with pytest.raises(ConfigError, match="num_byzantine=1 must be 0"):
        mean(V, num_byzantine=1)

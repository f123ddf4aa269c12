"""The regression: it finds a linear map, says what it explains, and adds up over clients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedzo.errors import ConfigError
from fedzo.finetuning.activity.feedback import Feedback
from fedzo.randomness import stream


def signs(b: int, *parts: int | str) -> Tensor:
    drawn = stream(0, *parts).integers(0, 2, (b, 5))
    return torch.from_numpy(2.0 * drawn - 1).float()


def normals(*shape: int) -> Tensor:
    return torch.from_numpy(stream(0, "normals", *shape).standard_normal(shape)).float()


TRUE = normals(5, 3)


def learned(ridge: float = 1e-6, *, seen: int = 40) -> Feedback:
    feedback = Feedback((2, 3), 3, ridge)
    s = signs(seen, "seen")
    feedback.observe(s, s @ TRUE)
    feedback.solve()
    return feedback


def test_two_examples_by_hand() -> None:
    feedback = Feedback((1,), 1, ridge=2.0)
    feedback.observe(torch.tensor([[1.0], [-1.0]]), torch.tensor([[3.0], [1.0]]))
    feedback.solve()  # S^T S = 2, S^T dz = 2, lam = 2 times the mean square, 1
    assert feedback.weights.item() == pytest.approx(2 / (2 + 2))


def test_a_linear_map_is_found_and_explains_all() -> None:
    feedback = learned()
    torch.testing.assert_close(feedback.weights, TRUE, rtol=1e-4, atol=1e-5)
    assert feedback.error(normals(4, 3)) is None  # not judged yet
    s = signs(10, "held out")
    feedback.observe(s, s @ TRUE)
    assert feedback.explained == pytest.approx(1, abs=1e-6)
    e = normals(4, 3)
    fed = feedback.error(e)
    assert fed is not None
    torch.testing.assert_close(fed, e @ TRUE.T, rtol=1e-4, atol=1e-4)


def test_a_map_that_explains_less_than_nothing_counts_as_none() -> None:
    feedback = learned()
    s = signs(10, "held out")
    feedback.observe(s, -(s @ TRUE))
    assert feedback.explained == pytest.approx(-3, abs=1e-3)  # 1 - |2 dz|^2 / |dz|^2
    assert feedback.error(normals(4, 3)) is None


def test_a_probe_is_judged_before_it_is_learned() -> None:
    feedback = Feedback((2, 3), 3)
    feedback.observe(signs(10, "a"), normals(10, 3))
    assert feedback.explained == 0
    feedback.solve()
    before = feedback.weights.clone()
    s, dz = signs(10, "b"), normals(10, 3)
    feedback.observe(s, dz)
    missed = (dz - s @ before).square().sum() / dz.square().sum()
    assert feedback.explained == pytest.approx(1 - float(missed), abs=1e-5)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_the_sums_of_clients_are_those_of_their_data_together(sizes: list[int]) -> None:
    parts, pooled = [], Feedback((2, 3), 3)
    for number, b in enumerate(sizes):
        part = Feedback((2, 3), 3)
        s, dz = signs(b, "client", number), normals(b, 3)
        for own in (part, pooled):
            own.observe(s, dz)
        parts.append(part)
    pooled.solve()
    merged = Feedback.merged(parts)
    torch.testing.assert_close(merged.gram, pooled.gram)
    torch.testing.assert_close(merged.cross, pooled.cross)
    torch.testing.assert_close(merged.weights, pooled.weights)
    assert merged.count == pooled.count == sum(sizes)


def test_clients_with_other_layers_or_none_do_not_add_up() -> None:
    with pytest.raises(ConfigError, match="same layers"):
        Feedback.merged([Feedback((2, 3), 3), Feedback((5,), 3)])
    with pytest.raises(ConfigError, match="at least one"):
        Feedback.merged([])


def test_what_is_long_ago_fades() -> None:
    feedback = Feedback((2, 3), 3, memory=50)
    for number in range(20):
        s = signs(50, "fading", number)
        feedback.observe(s, s @ (TRUE if number >= 10 else -TRUE))
        feedback.solve()
    assert feedback.count == 50
    torch.testing.assert_close(feedback.weights, TRUE, rtol=0.3, atol=0.3)
    assert feedback.explained > 0.9


def test_a_state_goes_on_as_before() -> None:
    one, other = learned(), Feedback((2, 3), 3, 1e-6)
    s = signs(10, "held out")
    one.observe(s, s @ TRUE)
    other.load_state_dict(one.state_dict())
    assert other.explained == one.explained
    for feedback in (one, other):
        feedback.observe(s, normals(10, 3))
        feedback.solve()
    assert torch.equal(one.weights, other.weights)
    with pytest.raises(ConfigError, match="widths"):
        Feedback((5,), 3).load_state_dict(one.state_dict())

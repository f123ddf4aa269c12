"""Every rule, and two attacks, against what byzfl 0.0.11 answered in float64.

benchmarks/byzfl_reference.py froze the answers. The inputs are made here again from the seeds of
that script: 100 random ones and 100 with rows of ALIE, n from 7 to 12, every f below n / 2.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedzo import aggregation
from fedzo.adversary.lies import ByzantineConfig, make_lies

DATA = Path(__file__).parents[2] / "data" / "byzfl_0.0.11.npz"
NUM_INPUTS = 200

RULES = {
    "trimmed_mean": {},
    "median": {},
    "krum": {},
    "multi_krum": {},
    "mean_around_median": {},
    "minimum_diameter": {},
    "nearest_neighbor_mixing": {},
    "centered_clipping": {"num_iterations": 3, "radius": 2.0},
    "adaptive_clip": {},
    "clip": {"radius": 2.0},
}


def make_input(number: int) -> tuple[torch.Tensor, int, int]:
    """As in benchmarks/byzfl_reference.py: vectors [n, 10], num_byzantine, own row."""
    generator = np.random.default_rng(number)
    n = int(generator.integers(7, 13))
    f = int(generator.integers(1, (n - 1) // 2 + 1))
    vectors = generator.normal(size=(n, 10)) + 3 * generator.normal(size=10)
    if number >= NUM_INPUTS // 2:
        honest = vectors[f:]
        lie = honest.mean(axis=0) + 1.5 * honest.std(axis=0, ddof=1)
        vectors[:f] = lie + 1e-3 * generator.normal(size=(f, 10))
    return torch.from_numpy(vectors), f, int(generator.integers(n))


def compare(name: str, answers: list[torch.Tensor]) -> None:
    expected = np.load(DATA)[name]
    ends = np.cumsum([len(answer) for answer in answers])
    for rows, answer in zip(np.split(expected, ends[:-1]), answers, strict=True):
        np.testing.assert_allclose(answer.numpy(), rows, rtol=1e-9, atol=1e-9 * abs(rows).max())


@pytest.mark.more
@pytest.mark.parametrize("name", RULES)
def test_agrees_with_byzfl(name: str) -> None:
    answers = []
    for number in range(NUM_INPUTS):
        vectors, f, _ = make_input(number)
        answer = getattr(aggregation, name)(vectors, num_byzantine=f, **RULES[name])
        answers.append(answer if answer.ndim == 2 else answer.unsqueeze(0))
    compare(name, answers)


def test_nearest_neighbor_average_agrees_with_byzfl() -> None:
    answers = []
    for number in range(NUM_INPUTS):
        vectors, f, own = make_input(number)
        rule = aggregation.nearest_neighbor_average
        answers.append(rule(vectors, num_byzantine=f, own=own).unsqueeze(0))
    compare("nearest_neighbor_average", answers)


def test_smea_agrees_with_byzfl_where_byzfl_has_no_choice() -> None:
    answers = []
    for number in range(NUM_INPUTS):
        vectors, f, _ = make_input(number)
        if number % 2:
            few = aggregation.smea(vectors[:, :1].contiguous(), num_byzantine=f)
        else:
            vectors[:f] += 1e4 * torch.arange(1, f + 1).unsqueeze(1)
            few = aggregation.smea(vectors, num_byzantine=f)
        answers.append(torch.from_numpy(np.resize(few.numpy(), 10)).unsqueeze(0))
    compare("smea", answers)


@pytest.mark.parametrize("attack", ["alie", "inner_product"])
def test_attacks_agree_with_byzfl(attack: str) -> None:
    config = ByzantineConfig(attack=attack, num_clients=2)  # type: ignore[arg-type]
    answers = []
    for number in range(NUM_INPUTS):
        vectors, f, _ = make_input(number)
        answers.append(make_lies(config, vectors[f:], 1, generator=np.random.default_rng(0)))
    compare(attack, answers)

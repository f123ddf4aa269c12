"""Own objectives: from Python and from a file, counted to the last query."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedzo.config import Scalar
from fedzo.errors import ConfigError
from fedzo.objectives.objective import (
    CallableObjective,
    ModuleObjective,
    TorchObjective,
    flatten_parameters,
)
from fedzo.randomness import stream
from scenarios import federate, make_experiment, simulate
from scenarios.problems.custom import load_function

FILE = """
from fedzo.objectives.objective import CallableObjective, TorchObjective


def bowl(client):
    def value(x):
        return float(((x - 0.2) ** 2).sum())

    return CallableObjective(function=value, dim=4, lower=0.0, upper=1.0)


number = 3
"""


@pytest.mark.parametrize("budget", [None, 123])
def test_the_count_is_what_the_objectives_saw(budget: int | None) -> None:
    asked: Counter[int] = Counter()

    def make(client: int) -> CallableObjective:
        def value(x: np.ndarray) -> float:
            asked[client] += 1
            return float(((x - 0.1 * client) ** 2).sum())

        return CallableObjective(function=value, dim=6, lower=-1.0, upper=1.0)

    result = federate(make, num_clients=3, num_rounds=4, query_budget=budget)
    assert result.queries == sum(asked.values())
    if budget is None:
        assert result.queries == 3 * (1 + 4 * (10 * 21 + 1))
    else:
        assert result.queries <= budget
        assert result.stops == ["budget"]
    assert result.final_value is not None


def test_it_finds_the_mean_of_the_targets() -> None:
    def make(client: int) -> CallableObjective:
        return CallableObjective(
            function=lambda x: float(((x - client) ** 2).sum()), dim=5, lower=-5.0, upper=5.0
        )

    result = federate(
        make,
        num_clients=4,
        num_rounds=60,
        settings={"client.optimizer": "sgd", "client.num_directions": 5, "strategy.local_steps": 1,
                  "strategy.local_lr": 0.2, "client.estimator": "central"},
    )  # fmt: skip
    torch.testing.assert_close(result.x, torch.full((5,), 1.5).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("strategy", ["square", "thompson", "fzoos"])
def test_noisy_answers_that_chose_an_x_do_not_judge_it(strategy: str) -> None:
    def make(client: int) -> CallableObjective:
        return CallableObjective(
            function=lambda x: float(((x - client) ** 2).sum()), dim=4, lower=-5.0, upper=5.0
        )

    def queries(std: float) -> list[int]:
        settings: dict[str, Scalar] = {"scenario.noise_std": std}
        told = federate(make, num_clients=3, num_rounds=3, strategy=strategy, settings=settings)
        return [record.queries for record in told.records]

    exact, noisy = queries(0.0), queries(0.1)
    assert noisy[0] == exact[0], "the start is asked either way"
    assert [n - e for n, e in zip(noisy, exact, strict=True)][1:] == [3, 6, 9]


def test_the_start_is_the_middle_or_the_given() -> None:
    def make(client: int) -> CallableObjective:
        box = {"lower": torch.tensor([0.0, -2.0]), "upper": torch.tensor([4.0, np.inf])}
        return CallableObjective(function=lambda x: 0.0, dim=2, **box)

    middle = federate(make, num_clients=1, num_rounds=0)
    assert middle.x.tolist() == [2.0, -2.0]
    given = federate(make, num_clients=1, num_rounds=0, initial_x=torch.ones(2).double())
    assert given.x.tolist() == [1.0, 1.0]
    with pytest.raises(ConfigError, match="the objectives have dim 2"):
        federate(make, num_clients=1, num_rounds=0, initial_x=torch.ones(3).double())


def test_a_file_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(FILE)
    experiment = make_experiment(
        "custom", "fedzo", num_rounds=20, settings={"scenario.objective": f"{path}:bowl"}
    )
    result = simulate(experiment)
    assert result.final_value is not None
    assert result.final_value < 1e-2


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("", "must be file.py:name or package.module:name"),
        ("bowl", "must be file.py:name or package.module:name"),
        ("missing.py:bowl", "which is not a file"),
        ("no.such.module:bowl", "cannot be imported"),
        ("{file}:bowls", "has no 'bowls'; it has bowl"),
        ("{file}:number", "is 3; it must be a function of a client id"),
    ],
)
def test_bad_references_are_named(tmp_path: Path, reference: str, message: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(FILE)
    with pytest.raises(ConfigError, match=message):
        load_function(reference.format(file=path))


@pytest.mark.parametrize("estimator", ["forward", "residual"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_dtype_with_partial_participation(dtype: torch.dtype, estimator: str) -> None:
    weights = torch.ones(4, dtype=torch.float32)

    def make(client: int) -> TorchObjective:
        return TorchObjective(function=lambda x: (x.float() * weights).square().sum(-1), dim=4)

    result = federate(
        make,
        num_clients=4,
        num_rounds=6,
        initial_x=torch.ones(4, dtype=dtype),
        settings={"client.estimator": estimator, "strategy.participation": 0.5},
    )
    assert result.x.dtype == dtype
    assert sum(len(record.failures) for record in result.records) == 0


def test_bounds_may_be_arrays_and_must_make_a_box() -> None:
    box = {"lower": np.zeros(3), "upper": np.array([1.0, 2.0, 3.0])}
    made = CallableObjective(function=lambda x: 0.0, dim=3, **box)  # type: ignore[arg-type]
    result = federate(lambda client: made, num_clients=2, num_rounds=1)
    assert torch.equal(torch.as_tensor(made.upper), torch.tensor([1.0, 2.0, 3.0]).double())
    assert result.records[0].value == 0.0
    for bad, message in (
        ({"lower": 2.0, "upper": 1.0}, "the box is empty"),
        ({"lower": np.zeros(2)}, r"shape \(2,\); give one number or 3"),
        ({"dim": 0}, "dim=0 must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            CallableObjective(**{"function": lambda x: 0.0, "dim": 3, **bad})  # type: ignore[arg-type]


def test_what_cannot_take_part_is_refused() -> None:
    def grows(client: int) -> CallableObjective:
        return CallableObjective(function=lambda x: 0.0, dim=3 + client)

    def raises(client: int) -> CallableObjective:
        raise KeyError("no such client")

    for make, message in (
        (grows, "client 1 has an objective of dim 4, client 0 of 3"),
        (lambda client: lambda x: 0.0, "which has no dim"),
        (raises, "the function raised KeyError"),
    ):
        with pytest.raises(ConfigError, match=message):
            federate(make, num_clients=3, num_rounds=1)  # type: ignore[arg-type]


def test_a_client_that_breaks_is_counted_exactly_and_named_as_missing_from_f() -> None:
    asked: Counter[int] = Counter()

    def make(client: int) -> CallableObjective:
        def value(x: np.ndarray) -> float:
            asked[client] += 1
            if client == 1 and asked[client] > 50:
                raise OSError("offline")
            return float((x**2).sum())

        return CallableObjective(function=value, dim=5)

    result = federate(make, num_clients=3, num_rounds=3, settings={"strategy.local_steps": 2})
    assert result.queries == sum(asked.values())
    assert [record.judges for record in result.records] == [3, 3, 2, 2]


def test_a_callback_ends_the_whole_run() -> None:
    def make(client: int) -> CallableObjective:
        return CallableObjective(function=lambda x: float((x**2).sum()), dim=2)

    result = federate(make, num_clients=2, num_rounds=9, callbacks=[lambda s: True])
    assert result.stops == ["callback"]
    assert len(result.records) == 1


@pytest.mark.parametrize(
    ("strategy", "given"),
    [
        ("dp_gd", None),
        ("diff2", torch.float64),
        ("fedavg", None),
        ("fedzo", torch.float64),
        pytest.param("dp_gd", torch.float64, marks=pytest.mark.slow),
        pytest.param("diff2", None, marks=pytest.mark.slow),
        pytest.param("fedavg", torch.float64, marks=pytest.mark.slow),
        pytest.param("fedzo", None, marks=pytest.mark.slow),
    ],
)
def test_a_module_starts_at_its_parameters_and_learns(
    strategy: str, given: torch.dtype | None
) -> None:
    """Whatever the type of x; private strategies as well, by the closed form of linear layers."""
    random = stream(5, "module")
    inputs = torch.from_numpy(random.standard_normal((200, 4))).float()
    labels = (inputs.sum(dim=1) > 0).long()
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Dropout(), torch.nn.Linear(5, 2)
    )
    for parameter in net.parameters():
        shape = tuple(parameter.shape)
        parameter.data = torch.from_numpy(0.3 * random.standard_normal(shape)).float()
    start = flatten_parameters(net)
    loss = torch.nn.functional.cross_entropy
    own = ModuleObjective(net, loss, inputs, labels)
    private = {"strategy.epsilon": 20.0, "strategy.delta": 1e-3}
    result = federate(
        lambda client: replace(own, inputs=inputs[client::2], targets=labels[client::2]),
        num_clients=2,
        strategy=strategy,
        num_rounds=5,
        initial_x=None if given is None else start.to(given),
        settings=private if strategy in ("dp_gd", "diff2") else None,
    )
    assert result.records[0].value == pytest.approx(float(own.value(start)))
    assert result.records[-1].value < 0.95 * result.records[0].value
    assert torch.equal(flatten_parameters(net), start)

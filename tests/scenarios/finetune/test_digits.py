"""The small tasks: sizes, seeds, and that there is something to adapt to."""

import pytest
import torch

from fedzo.randomness import stream
from scenarios.finetune.task import Task
from scenarios.finetune.tasks import TaskName, make_task

DIMS = {"shifted_digits": 52_650, "digits_transformer": 17_962, "digits_cnn": 610}


def trained(task: Task, lr: float, epochs: int) -> float:
    optimizer = torch.optim.Adam(task.module.parameters(), lr=lr)
    generator = stream(0, "batches")
    for _ in range(epochs):
        for rows in task.batches(32, generator=generator):
            inputs, targets = task.train_batch(rows)
            optimizer.zero_grad()
            task.losses(task.module(inputs), targets).mean().backward()
            optimizer.step()
    return task.accuracy()


@pytest.mark.more
@pytest.mark.parametrize(
    ("name", "lr", "epochs", "start", "end"),
    [
        ("shifted_digits", 1e-3, 10, 0.4, 0.8),
        ("digits_cnn", 1e-2, 8, 0.2, 0.9),
        pytest.param("digits_transformer", 3e-3, 15, 0.2, 0.85, marks=pytest.mark.slow),
    ],
)
def test_first_order_adapts(
    name: TaskName, lr: float, epochs: int, start: float, end: float
) -> None:
    task = make_task(name, seed=0)
    assert sum(p.numel() for p in task.module.parameters()) == DIMS[name]
    assert task.accuracy() < start
    assert trained(task, lr, epochs) > end


def test_seeds_draw_networks_and_examples() -> None:
    one, same, other = (make_task("digits_cnn", seed=s, examples=50) for s in (0, 0, 1))
    assert len(one.train) == 50
    assert torch.equal(one.train.inputs, same.train.inputs)
    assert torch.equal(one.outputs(one.test), same.outputs(same.test))
    assert not torch.equal(one.train.inputs, other.train.inputs)
    assert not torch.equal(one.module[0].weight, other.module[0].weight)  # type: ignore[arg-type]


def test_fewer_layers_are_fewer_parameters() -> None:
    task = make_task("digits_cnn", seed=0, layers=0)
    assert sum(p.numel() for p in task.module.parameters()) == 550
    assert task.train.inputs.shape == (1437, 54)

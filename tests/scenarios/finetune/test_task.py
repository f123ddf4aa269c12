"""Prefix and module are the network, whatever is cached; batches, heads and shards."""

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn

from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.data.partition import Partition
from scenarios.finetune.digits import initialize
from scenarios.finetune.encoder import EncoderSizes, make_encoder, present
from scenarios.finetune.task import Examples, Source, Task, logistic_head, mapped, pose

SIZES = EncoderSizes(vocabulary=30, positions=12, width=8, heads=2, inner=16, layers=3, eps=1e-12)


def source(*, new_head: bool = False) -> Source:
    """Return an encoder and sequences whose class is whether they hold the token 7."""
    generator = stream(0, "task")
    tokens = torch.from_numpy(generator.integers(1, 20, (300, 9)))
    lengths = torch.from_numpy(generator.integers(3, 10, 300))
    tokens[torch.arange(9) >= lengths.unsqueeze(1)] = 0
    every = Examples(tokens, (tokens == 7).any(1).long())
    encoder, head = make_encoder(SIZES), nn.Linear(8, 2, device="meta")
    network = nn.Sequential(OrderedDict([*encoder.named_children(), ("head", head)]))
    initialize(network, generator=stream(1, "task"))
    return Source(
        network=network,
        train=every.take(slice(200)),
        test=every.take(slice(200, None)),
        layers=1,
        padded=True,
        new_head=new_head,
    )


def task(layers: int = 1) -> Task:
    return pose("tokens", source(), layers)


@pytest.mark.parametrize("layers", range(5))
def test_the_cached_outputs_and_the_module_are_the_network(layers: int) -> None:
    whole, made = source(), task(layers)
    expected = whole.network(whole.test.inputs)
    torch.testing.assert_close(made.outputs(made.test), expected, rtol=1e-4, atol=1e-6)
    inputs, targets = made.train_batch(torch.tensor([3, 1, 4]))
    assert torch.equal(targets, whole.train.targets[[3, 1, 4]])
    torch.testing.assert_close(
        made.module(inputs), whole.network(whole.train.inputs[[3, 1, 4]]), rtol=1e-4, atol=1e-6
    )
    assert len(made.layers) == layers
    owned = {name.partition(".")[0] for name, _ in made.module.named_parameters()}
    assert owned == {*made.layers, "head"}
    assert all(p.requires_grad for p in made.module.parameters())
    assert [*made.cached, *dict(made.module.named_children())] == list(
        dict(whole.network.named_children())
    )


def test_too_many_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="layers=5 exceeds the 4 layers of tokens: embedding"):
        task(5)
    assert task(-1).layers == ("layer2",)


def test_batches_are_of_similar_length_and_no_example_comes_twice() -> None:
    made = task()
    batches = made.batches(8, generator=stream(0, "batches"))
    assert len(batches) == 25
    assert torch.cat(batches).sort().values.tolist() == list(range(200))
    lengths = present(made.train.inputs).sum(1)
    spread = [int(lengths[rows].max() - lengths[rows].min()) for rows in batches]
    assert sum(spread) / len(spread) < 2
    rows = batches[0]
    assert made.train_batch(rows)[0].shape[1] == int(lengths[rows].max())
    again = made.batches(8, generator=stream(0, "batches"))
    assert all(map(torch.equal, batches, again))
    assert not all(map(torch.equal, batches, made.batches(8, generator=stream(1, "batches"))))


def test_losses_are_cross_entropies_and_the_objective_is_their_mean() -> None:
    made = task()
    inputs, targets = made.train_batch(torch.arange(50))
    outputs = made.module(inputs)
    expected = nn.functional.cross_entropy(outputs, targets, reduction="none")
    torch.testing.assert_close(made.losses(outputs, targets), expected)
    objective = made.objective(torch.arange(50))
    value = objective.value(objective.initial_x.unsqueeze(0))  # type: ignore[union-attr]
    assert float(value[0]) == pytest.approx(float(expected.mean()), rel=1e-5)
    each = objective.record_losses(objective.initial_x.unsqueeze(0))  # type: ignore[union-attr]
    torch.testing.assert_close(each[0], expected, rtol=1e-4, atol=1e-5)
    whole = made.evaluate(replace(made.train, inputs=made.train.inputs.clone()))
    assert whole.loss == pytest.approx(
        float(made.losses(made.outputs(made.train), made.train.targets).mean())
    )


def test_a_new_head_is_the_best_for_the_features() -> None:
    made = pose("tokens", source(new_head=True), 1)
    head = made.module.get_submodule("head")
    features = mapped(made.module[:-1], made.train.inputs, padded=True).double()
    weight = head.get_parameter("weight").detach().double().requires_grad_(True)
    bias = head.get_parameter("bias").detach().double().requires_grad_(True)
    outputs = features @ weight.T + bias
    loss = nn.functional.cross_entropy(outputs, made.train.targets, reduction="sum")
    (loss + weight.square().sum() / 2).backward()
    assert float(weight.grad.abs().max()) < 1e-3  # type: ignore[union-attr]
    assert float(bias.grad.abs().max()) < 1e-3  # type: ignore[union-attr]
    assert made.evaluate(made.train).loss < task().evaluate(task().train).loss


def test_the_logistic_head_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = stream(0, "logistic")
    z = torch.from_numpy(generator.standard_normal((90, 4)))
    y = torch.from_numpy(generator.integers(0, 3, 90))
    weight, bias = logistic_head(z, y, penalty=0.5)
    other = linear_model.LogisticRegression(C=2.0, tol=1e-10, max_iter=1000).fit(z, y)
    torch.testing.assert_close(weight, torch.from_numpy(other.coef_), rtol=1e-3, atol=1e-4)
    gaps = torch.from_numpy(other.intercept_)
    torch.testing.assert_close(bias - bias.mean(), gaps - gaps.mean(), rtol=1e-3, atol=1e-4)


def test_shards_share_out_the_training_examples() -> None:
    made = task()
    shards = made.shards(5, Partition(kind="iid"), generator=stream(0, "shards"))
    assert torch.cat(shards).sort().values.tolist() == list(range(200))
    classes = Partition(kind="by_label", classes_per_client=1)
    for rows in made.shards(2, classes, generator=stream(0, "shards")):
        assert len(made.train.targets[rows].unique()) == 1

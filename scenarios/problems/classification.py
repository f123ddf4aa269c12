"""First-order federated learning on class-skewed shards: the counterpart of the black boxes.

    f_i(x) = mean over client i's examples of cross-entropy(network(x), label)
    F = (1/N) sum_i f_i

McMahan et al., AISTATS 2017. x is the flat parameter vector of an MLP (one hidden layer), a strided
CNN, or LeNet. F and the test accuracy are computed by the simulation itself and cost no query.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedzo.config import check_types, require, require_nonnegative
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.objective import ModuleObjective, unflatten_parameters
from fedzo.objectives.problem import Problem, Report
from fedzo.protocol.questions.anchored import AnchorConfig
from fedzo.protocol.questions.training_config import (
    FirstOrderConfig,
    MomentumConfig,
    ZerothOrderConfig,
)
from fedzo.randomness import stream
from fedzo.used_with import UsedWith, one_of
from scenarios.data.folders import is_own_folder
from scenarios.data.images import DatasetName, Images, load_images, normalized
from scenarios.data.networks import (
    ActivationName,
    ModelName,
    load_parameters,
    make_network,
    mlp_forward,
    random_mlp,
    random_module,
)
from scenarios.data.partition import Partition, PartitionKind, split
from scenarios.problems.mlp_cohort import MLPShards
from scenarios.problems.one_problem import KnownProblem, OneProblem
from scenarios.problems.scenario import BOUNDLESS, JUDGED_HERE, QUERIED, Suggestions


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationConfig:
    """Settings: the data (scenarios.data.images), the model, how clients share the examples.

    max_examples: training images that are used, drawn at random; 0 uses all. normalize: whether
    pixels are shifted and scaled to mean 0 and variance 1 over the training images. hidden,
    activation: units of the MLP and what they do. partition, classes_per_client, alpha, min_size,
    shuffled: see scenarios.data.partition.
    report_gradient: whether the metric gradient_norm_sq, |grad F(x)|^2, is reported; it costs the
    simulation a pass over all training images each time, and no query.
    """

    dataset: DatasetName = "mnist5k"
    data_dir: str = ""
    max_examples: int = 0
    normalize: bool = False
    model: ModelName = "mlp"
    hidden: int = 64
    activation: ActivationName = "relu"
    partition: PartitionKind = "by_label"
    classes_per_client: int = 2
    alpha: float = 0.5
    min_size: int = 10
    shuffled: bool = True
    report_gradient: bool = False
    noise_std: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "strategy.min_judges": JUDGED_HERE,
        "strategy.judges": JUDGED_HERE,
        "noise_std": QUERIED,
        **dict.fromkeys(("client.out_of_bounds", "client.project"), BOUNDLESS),
        "data_dir": one_of("dataset", "idx"),
        **dict.fromkeys(("hidden", "activation"), one_of("model", "mlp")),
        "classes_per_client": one_of("partition", "by_label"),
        "alpha": one_of("partition", "dirichlet", "quantity_skew"),
    }

    @property
    def own_data(self) -> bool:
        """Whether the images lie in a folder of the user's own."""
        return is_own_folder(self.dataset, self.data_dir)

    def __post_init__(self) -> None:
        check_types(self)
        require(self.hidden >= 1, "hidden", self.hidden, "at least 1")
        count = self.max_examples
        require(count >= 0, "max_examples", count, "0 (all) or more")
        require_nonnegative("noise_std", self.noise_std)
        self.split()

    def split(self) -> Partition:
        """Return the partition that the settings name."""
        return Partition(
            kind=self.partition,
            classes_per_client=self.classes_per_client,
            alpha=self.alpha,
            min_size=self.min_size,
            shuffled=self.shuffled,
        )


_CHUNK = 500
"""Images judged at once: their activations should fit into the cache."""


class ClassificationScenario(OneProblem):
    """The scenario `classification`."""

    default_clients: ClassVar[int] = 20
    default_rounds: ClassVar[int] = 100
    suggested: ClassVar[Suggestions] = {
        FirstOrderConfig: {"strategy.local_lr": 0.1, "client.batch_size": 32},
        AnchorConfig: {"strategy.local_lr": 0.03, "client.batch_size": 32},
        MomentumConfig: {"strategy.local_lr": 0.5, "client.batch_size": 25, "client.beta": 0.99},
        ZerothOrderConfig: {
            "strategy.local_lr": 0.003,
            "client.mu": 0.001,
            "client.batch_size": 32,
        },
    }

    def __init__(self, config: ClassificationConfig, *, num_clients: int, seed: int) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        train, self._test = load_images(config.dataset, config.data_dir, seed=seed)
        side, classes = train.pixels.shape[-1], train.num_classes
        if 0 < config.max_examples < len(train):
            drawn = stream(seed, "classification", "examples").permutation(len(train))
            train = train.take(drawn[: config.max_examples])
        generator = stream(seed, "classification", "partition")
        shards = split(train.labels.numpy(), num_clients, config.split(), generator=generator)
        if config.normalize:
            train, self._test = normalized(train, self._test)
        self._train = train.take(np.concatenate(shards))
        self._sizes = torch.tensor([len(shard) for shard in shards])
        self._offsets = self._sizes.cumsum(0) - self._sizes
        self._layers = (side * side, config.hidden, classes)
        self._shards = MLPShards(
            inputs=self._train.pixels.flatten(1),
            targets=self._train.labels,
            offsets=self._offsets,
            sizes=self._sizes,
            layers=self._layers,
            activation=config.activation,
        )
        self._cnn = make_network(config.model, side, classes)
        self._report_gradient = config.report_gradient
        start = stream(seed, "classification", "start")
        self._initial_x = (
            random_mlp(self._layers, generator=start)
            if self._cnn is None
            else random_module(self._cnn, generator=start)
        )
        if self._cnn is not None:
            load_parameters(self._cnn, self._initial_x).requires_grad_(True)

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        if self._cnn is not None:
            return cohort_of([self._cnn_objective(self._cnn, client) for client in client_ids])
        return self._shards.of(client_ids)

    def problem(self, index: int) -> Problem:
        return KnownProblem(self._initial_x, self._judge)

    def _cnn_objective(self, module: nn.Module, client: int) -> ModuleObjective:
        first = int(self._offsets[client])
        rows = slice(first, first + int(self._sizes[client]))
        pixels, labels = self._train.pixels[rows].unsqueeze(1), self._train.labels[rows]
        return ModuleObjective(module, torch.nn.functional.cross_entropy, pixels, labels)

    def _judge(self, x: Float[Tensor, " d"]) -> Report:
        """Return F, the mean of the clients' mean losses, and what the test images say."""
        with torch.no_grad():
            losses = _losses(self._logits(x, self._train), self._train.labels)
            scores = self._logits(x, self._test)
        value = torch.stack([part.mean() for part in losses.split(self._sizes.tolist())]).mean()
        accuracy = (scores.argmax(-1) == self._test.labels).double().mean()
        test_loss = _losses(scores, self._test.labels).mean()
        metrics = {"test_accuracy": float(accuracy), "test_loss": float(test_loss)}
        if self._report_gradient:
            metrics["gradient_norm_sq"] = float(self._gradient(x).square().sum())
        return Report(float(value), metrics)

    def _gradient(self, x: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Return grad F(x), made of chunks of the training images."""
        shares = (1 / (self.num_clients * self._sizes)).repeat_interleave(self._sizes)
        total = torch.zeros_like(x)
        for rows in torch.arange(len(self._train)).split(_CHUNK):
            point = x.detach().requires_grad_(True)
            part = self._train.take(rows)
            loss = (shares[rows] * _losses(self._logits(point, part), part.labels)).sum()
            total += torch.autograd.grad(loss, point)[0]
        return total

    def _logits(self, x: Float[Tensor, " d"], images: Images) -> Float[Tensor, "n c"]:
        if self._cnn is None:
            return mlp_forward(x, images.pixels.flatten(1), self._layers, self._shards.activation)
        state = unflatten_parameters(self._cnn, x)
        parts = images.pixels.unsqueeze(1).split(_CHUNK)
        return torch.cat([torch.func.functional_call(self._cnn, state, (part,)) for part in parts])


def _losses(logits: Float[Tensor, "n c"], labels: Tensor) -> Float[Tensor, " n"]:
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

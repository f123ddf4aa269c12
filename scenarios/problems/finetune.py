"""Adapting a trained network to new data, which clients hold.

    f_i(x) = mean over client i's examples of cross-entropy(network(x), class)
    F = (1/N) sum_i f_i

x is the parameters of the last layers and the head of a network, and starts where they are; what
the layers below put out is kept (scenarios.finetune). F, the test loss and the test accuracy are
known to the simulation itself and cost no query.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import check_types, require, require_nonnegative
from fedzo.estimation.snapshots import keep_snapshots
from fedzo.objectives.called_with import called_with
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.objective import flatten_parameters, unflatten_parameters
from fedzo.objectives.problem import Problem, Report
from fedzo.protocol.questions.in_place import InPlaceConfig
from fedzo.protocol.questions.training_config import FirstOrderConfig, ZerothOrderConfig
from fedzo.randomness import stream
from fedzo.used_with import UsedWith, one_of, other_than
from scenarios.data.partition import Partition, PartitionKind
from scenarios.finetune.tasks import TaskName, make_task
from scenarios.problems.one_problem import KnownInPlace, KnownProblem, OneProblem
from scenarios.problems.scenario import BOUNDLESS, JUDGED_HERE, QUERIED, Suggestions


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Settings.

    task: see scenarios.finetune, texts and digits; those of texts need an encoder and data_dir, the
    folder of the archive that is asked for. layers: how many of the last layers are trained beside
    the head, -1 for what the task suggests. adapters: rank of the low-rank adapters (LoRA) that are
    trained in their place, 0 for none. examples: to train on, over all clients, 0 for what the
    task has. partition, classes_per_client, alpha, min_size: see scenarios.data.partition.
    snapshots: a folder for the parameters of a module that is moved in place, written every
    snapshot_every steps; whoever begins anew replays the rest (fedzo.estimation.snapshots).
    """

    task: TaskName = "shifted_digits"
    data_dir: str = ""
    layers: int = -1
    adapters: int = 0
    examples: int = 0
    partition: PartitionKind = "iid"
    classes_per_client: int = 1
    alpha: float = 0.5
    min_size: int = 10
    noise_std: float = 0.0
    snapshots: str = ""
    snapshot_every: int = 100
    USED_WITH: ClassVar[UsedWith] = {
        "strategy.min_judges": JUDGED_HERE,
        "strategy.judges": JUDGED_HERE,
        "noise_std": QUERIED,
        **dict.fromkeys(("client.out_of_bounds", "client.project"), BOUNDLESS),
        "data_dir": one_of("task", "snippets", "order", "order_marked"),
        "classes_per_client": one_of("partition", "by_label"),
        "alpha": one_of("partition", "dirichlet", "quantity_skew"),
        "snapshots": one_of("rule", "in_place"),
        "snapshot_every": other_than("snapshots", ""),
    }

    def __post_init__(self) -> None:
        check_types(self)
        require(self.layers >= -1, "layers", self.layers, "-1 (as suggested) or more")
        require_nonnegative("adapters", self.adapters)
        require(self.examples >= 0, "examples", self.examples, "0 (all) or more")
        require_nonnegative("noise_std", self.noise_std)
        require(self.snapshot_every >= 1, "snapshot_every", self.snapshot_every, "at least 1")
        self.split()

    @property
    def own_data(self) -> bool:
        """Whether the examples are the user's own: those of a folder, for all that is known."""
        return bool(self.data_dir)

    def split(self) -> Partition:
        """Return the partition that the settings name."""
        return Partition(
            kind=self.partition,
            classes_per_client=self.classes_per_client,
            alpha=self.alpha,
            min_size=self.min_size,
        )


class FinetuneScenario(OneProblem):
    """The scenario `finetune`."""

    default_clients: ClassVar[int] = 10
    default_rounds: ClassVar[int] = 100
    suggested: ClassVar[Suggestions] = {
        FirstOrderConfig: {"strategy.local_lr": 0.1, "client.batch_size": 16},
        ZerothOrderConfig: {
            "strategy.local_lr": 0.003,
            "client.mu": 0.001,
            "client.batch_size": 16,
        },
        InPlaceConfig: {"strategy.server_lr": 0.003, "client.batch_size": 16},
    }

    def __init__(self, config: FinetuneConfig, *, num_clients: int, seed: int) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        self.task = make_task(
            config.task,
            seed=seed,
            layers=config.layers,
            adapters=config.adapters,
            examples=config.examples,
            data_dir=config.data_dir,
        )
        if config.snapshots:
            keep_snapshots(self.task.module, config.snapshots, config.snapshot_every)
        generator = stream(seed, "finetune", "partition")
        self._shards = self.task.shards(num_clients, config.split(), generator=generator)

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        return cohort_of([self.task.objective(self._shards[client]) for client in client_ids])

    def problem(self, index: int) -> Problem:
        return KnownProblem(flatten_parameters(self.task.module), self._judge)

    def placed(self) -> Problem:
        """Return the problem of moving the module where it is."""
        return KnownInPlace(self.task.module, self._judge)

    def _judge(self, x: Float[Tensor, " d"] | None = None) -> Report:
        """Return F, the mean of the clients' mean losses, and what the test examples say.

        Without x, of the module as it is.
        """
        network = None if x is None else self._network(x.detach())
        outputs = self.task.outputs(self.task.train, network)
        losses = self.task.losses(outputs, self.task.train.targets)
        value = torch.stack([losses[rows].mean() for rows in self._shards]).mean()
        test = self.task.evaluate(self.task.test, network)
        return Report(float(value), {"test_accuracy": test.accuracy, "test_loss": test.loss})

    def _network(self, x: Float[Tensor, " d"]) -> Callable[[Tensor], Tensor]:
        """Return the module with other parameters."""
        state = unflatten_parameters(self.task.module, x)

        def network(inputs: Tensor) -> Tensor:
            outputs: Tensor = called_with(self.task.module, state, inputs)
            return outputs

        return network

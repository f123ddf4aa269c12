"""Regression by a small network, record by record: where privacy is measured.

    f_i(x) = mean over client i's records of (network(x; features) - target)^2
    F = (1/N) sum_i f_i

The setting of Murata & Suzuki, "DIFF2", ICML 2023: one hidden layer of softplus units, clients with
equally many records, features scaled and clipped (see scenarios.data.columns), 80 % of the records
for training. x is the flat parameter vector. F, the test loss and |grad F|^2 are computed by the
simulation itself: they cost no query, and no epsilon covers them.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fedzo.config import require, require_nonnegative
from fedzo.objectives.cohort import CohortObjective
from fedzo.objectives.problem import Problem, Report
from fedzo.parts import composed, part
from fedzo.privacy.clipping import MAX_FLOATS
from fedzo.protocol.questions.anchored import AnchorConfig
from fedzo.protocol.questions.private import ClippedConfig
from fedzo.protocol.questions.training_config import (
    FirstOrderConfig,
    MomentumConfig,
    ZerothOrderConfig,
)
from fedzo.randomness import stream
from fedzo.used_with import UsedWith, one_of
from scenarios.data.columns import (
    RegressionDataName,
    ScalingName,
    load_columns,
    read_scales,
    scaled,
)
from scenarios.data.csv_lines import TableFormat, require_csv, require_one_split
from scenarios.data.networks import ActivationName, random_mlp
from scenarios.data.partition import Partition, by_owner, split
from scenarios.problems.mlp_cohort import MLPShards
from scenarios.problems.one_problem import KnownProblem, OneProblem
from scenarios.problems.scenario import BOUNDLESS, JUDGED_HERE, QUERIED, Suggestions


@composed
class RegressionConfig:
    """Settings: the data and their scales (see scenarios.data.columns), the network, the split.

    path: the CSV file, or scikit-learn's data home; header to text_columns: of a CSV file, see
    scenarios.data.csv_lines; target: name of a column, the last one if empty. feature_bound:
    largest |scaled feature|, 0 for none. max_records: that are used, drawn at random; 0 uses all.
    partition, alpha, min_size: see scenarios.data.partition; equal cuts all clients to the size of
    the smallest. client_column: of a CSV file, says whose a row is, in place of a partition.
    """

    data: RegressionDataName = "synthetic"
    path: str = ""
    layout: TableFormat = part(TableFormat)
    target: str = ""
    scaling: ScalingName = "public"
    scales: str = ""
    feature_bound: float = 4.0
    max_records: int = 0
    hidden: int = 10
    activation: ActivationName = "softplus"
    partition: Literal["equal", "iid", "quantity_skew"] = "equal"
    alpha: float = 0.5
    min_size: int = 10
    noise_std: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "strategy.min_judges": JUDGED_HERE,
        "strategy.judges": JUDGED_HERE,
        "noise_std": QUERIED,
        **dict.fromkeys(("client.out_of_bounds", "client.project"), BOUNDLESS),
        "target": one_of("data", "csv"),
        "path": one_of("data", "csv", "california"),
        "scales": one_of("scaling", "public"),
        "alpha": one_of("partition", "quantity_skew"),
    }

    @property
    def own_data(self) -> bool:
        """Whether the rows are of a file of the user's own."""
        return self.data == "csv"

    def __post_init__(self) -> None:
        require_csv(self)
        require_one_split(self, "partition", "alpha", "min_size")
        require(self.hidden >= 1, "hidden", self.hidden, "at least 1")
        require(self.max_records >= 0, "max_records", self.max_records, "0 (all) or more")
        require_nonnegative("feature_bound", self.feature_bound)
        require_nonnegative("noise_std", self.noise_std)
        self.split()

    def split(self) -> Partition:
        """Return the partition that the settings name."""
        kind = "iid" if self.partition == "equal" else self.partition
        return Partition(kind=kind, alpha=self.alpha, min_size=self.min_size)


class RegressionScenario(OneProblem):
    """The scenario `regression`."""

    default_clients: ClassVar[int] = 10
    default_rounds: ClassVar[int] = 200
    suggested: ClassVar[Suggestions] = {
        FirstOrderConfig: {"strategy.local_lr": 0.1},
        AnchorConfig: {"strategy.local_lr": 0.1},
        MomentumConfig: {"strategy.local_lr": 0.3},
        ZerothOrderConfig: {"strategy.local_lr": 0.05, "client.mu": 0.001},
        ClippedConfig: {"client.mu": 0.001},
    }

    def __init__(self, config: RegressionConfig, *, num_clients: int, seed: int) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        columns, known = load_columns(
            config.data, config.path, config.target, config.layout, seed=seed
        )
        known = read_scales(config.scales) if config.scales else known
        count = len(columns.values[columns.target])
        order = stream(seed, "regression", "split").permutation(count)
        order = order[: config.max_records or count]
        cut = len(order) * 4 // 5
        require(cut > 0, "rows of the table", len(order), "at least 2, for a fifth is held out")
        numbers = scaled(columns, order[:cut], known, config.scaling, config.feature_bound)
        generator = stream(seed, "regression", "partition")
        if columns.owners is not None:
            shards = by_owner(columns.owners, order[:cut], num_clients)
        else:
            shards = split(order[:cut], num_clients, config.split(), generator=generator)
            if config.partition == "equal":
                shards = [shard[: cut // num_clients] for shard in shards]
        rows = torch.cat([torch.from_numpy(order[shard]) for shard in shards])
        features, targets = torch.from_numpy(numbers.features), torch.from_numpy(numbers.targets)
        sizes = torch.tensor([len(shard) for shard in shards])
        layers = (features.shape[1], config.hidden, 1)
        self._train = MLPShards(
            inputs=features[rows],
            targets=targets[rows],
            offsets=sizes.cumsum(0) - sizes,
            sizes=sizes,
            layers=layers,
            loss="squared",
            activation=config.activation,
        )
        held_out = torch.from_numpy(order[cut:])
        self._test = MLPShards(
            inputs=features[held_out],
            targets=targets[held_out],
            offsets=torch.tensor([0]),
            sizes=torch.tensor([len(held_out)]),
            layers=layers,
            loss="squared",
            activation=config.activation,
        )
        self._initial_x = random_mlp(layers, generator=stream(seed, "regression", "start"))

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        return self._train.of(client_ids)

    def problem(self, index: int) -> Problem:
        return KnownProblem(self._initial_x, self._judge)

    def _judge(self, x: Float[Tensor, " d"]) -> Report:
        """Return F, the mean of the clients' mean losses, |grad F|^2, and the test loss."""
        train, count = self._train, self.num_clients
        with torch.no_grad():
            value = train.value(x.expand(count, 1, -1)).mean()
            test_loss = self._test.value(x.expand(1, 1, -1)).mean()
            free = x.new_full((count,), torch.inf)
            sums = train.clipped_sums(x.expand(count, -1), None, free, MAX_FLOATS).sums
        gradient = (sums / train.sizes.unsqueeze(1)).mean(dim=0)
        metrics = {
            "test_loss": float(test_loss),
            "gradient_norm_sq": float(gradient.square().sum()),
        }
        return Report(float(value), metrics)

"""Repairing a classifier by a metric that has no gradient.

    theta = theta* + radius (2 x - 1),  x in [0, 1]^d;  f_i(x) = 1 - metric(theta, rows of client i)
    metric: macro-averaged F1, precision, recall or Jaccard;   F = (1/N) sum_i f_i

theta* is an MLP trained on one half of the data, standardized; the other half is split over clients
of few classes each. Shu, Lin, Dai & Low, arXiv 2308.04077, section 6.3 and appendix: Covertype,
layers 54-30-14-7 (d = 2189), seven clients, radius 0.2, the start is theta*, x = 1/2. f_i is
piecewise constant, so probes must be long enough to change a prediction. F and the metric over all
clients' rows together are computed by the simulation and cost no query.

Differs from the paper: any table may be used; its code loses a class to an off-by-one, ours does
not. As in scikit-learn, the average is over the classes that occur among labels or predictions.
"""

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedzo.config import require, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.problem import Problem, Report
from fedzo.parts import composed, part
from fedzo.protocol.questions.probes import ProbesConfig
from fedzo.protocol.questions.surrogate import SurrogateConfig
from fedzo.protocol.questions.training_config import ZerothOrderConfig
from fedzo.randomness import stream
from fedzo.used_with import UsedWith, one_of
from scenarios.data.csv_lines import CsvFormat, require_csv, require_one_split, written_at
from scenarios.data.networks import mlp_forward
from scenarios.data.partition import Indices, by_label, by_owner
from scenarios.data.tables import Table, TableName, load_table
from scenarios.problems.one_problem import KnownProblem, OneProblem
from scenarios.problems.scenario import JUDGED_HERE, WITHOUT_GRADIENTS, Suggestions

MetricName = Literal["f1", "precision", "recall", "jaccard"]


@composed
class MetricConfig:
    """Settings.

    data, path: see scenarios.data.tables; header to client_column: of a CSV file, see
    scenarios.data.csv_lines; target: the column of its classes, the last one if empty. metric:
    macro-averaged. hidden: units of the hidden layers, separated by commas. radius: of the box
    around the trained parameters. classes_per_client: of the clients' rows. max_rows: rows of a
    client that are used, 0 for all. training_seed: of the split in halves and of the training,
    apart from the run's seed.
    """

    data: TableName = "digits"
    path: str = ""
    csv: CsvFormat = part(CsvFormat)
    target: str = ""
    metric: MetricName = "f1"
    hidden: str = "30,14"
    radius: float = 0.2
    classes_per_client: int = 2
    max_rows: int = 0
    max_iterations: int = 300
    training_seed: int = 0
    noise_std: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "strategy.min_judges": JUDGED_HERE,
        "strategy.judges": JUDGED_HERE,
        "path": one_of("data", "csv", "covertype"),
        "target": one_of("data", "csv"),
    }

    @property
    def own_data(self) -> bool:
        """Whether the rows are of a file of the user's own."""
        return self.data == "csv"

    def __post_init__(self) -> None:
        require_csv(self)
        require_one_split(self, "classes_per_client")
        require(0 < self.radius < np.inf, "radius", self.radius, "positive and finite")
        require(self.max_rows >= 0, "max_rows", self.max_rows, "0 (all) or more")
        require(self.max_iterations >= 1, "max_iterations", self.max_iterations, "at least 1")
        require_nonnegative("noise_std", self.noise_std)
        seed = self.training_seed
        require(0 <= seed < 2**32, "training_seed", seed, "0 or more, and below 2^32")
        classes = self.classes_per_client
        require(classes >= 1, "classes_per_client", classes, "at least 1")
        self.layers()

    def layers(self) -> list[int]:
        """Return the hidden layers' units; raises ConfigError for anything but whole numbers."""
        try:
            units = [int(part) for part in self.hidden.split(",")]
        except ValueError:
            units = [0]
        require(min(units) >= 1, "hidden", self.hidden, "units such as 30,14")
        return units


def macro_scores(
    predicted: Int[Tensor, "q b"], labels: Int[Tensor, " b"], num_classes: int, metric: MetricName
) -> Float[Tensor, " q"]:
    """Return the metric, averaged over the classes among labels or predictions, q times."""
    scores, occurs = class_scores(predicted, labels, num_classes, metric)
    return (scores * occurs).sum(dim=1) / occurs.sum(dim=1)


def class_scores(
    predicted: Int[Tensor, "q b"], labels: Int[Tensor, " b"], num_classes: int, metric: MetricName
) -> tuple[Float[Tensor, "q c"], Bool[Tensor, "q c"]]:
    """Return the metric of every class, q times, and whether it is among labels or predictions."""
    said = torch.nn.functional.one_hot(predicted, num_classes).double()
    true = torch.nn.functional.one_hot(labels, num_classes).double()
    hits = (said * true).sum(dim=1)
    guessed, actual = said.sum(dim=1), true.sum(dim=0)
    below = {
        "f1": (guessed + actual) / 2,
        "precision": guessed,
        "recall": actual.expand_as(guessed),
        "jaccard": guessed + actual - hits,
    }[metric]
    occurs = (guessed + actual) > 0
    return torch.where(below > 0, hits / below.clamp_min(1e-12), 0.0), occurs


@dataclass(frozen=True, slots=True)
class MetricObjective:
    """1 - metric of one client's rows as a function of the perturbation; a black box."""

    center: Float[Tensor, " d"]
    layers: tuple[int, ...]
    rows: Float[Tensor, "b k"]
    labels: Int[Tensor, " b"]
    metric: MetricName
    radius: float
    lower: float = 0.0
    upper: float = 1.0

    @property
    def dim(self) -> int:
        return len(self.center)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        with torch.no_grad():
            flat = x.reshape(-1, self.dim).to(self.center)
            said = self.predicted(flat)
            scores = macro_scores(said, self.labels, self.layers[-1], self.metric)
            return (1 - scores).reshape(x.shape[:-1])

    def predicted(self, x: Float[Tensor, "q d"]) -> Int[Tensor, "q b"]:
        """Return the classes that the model gives its rows at each point."""
        theta = self.center + self.radius * (2 * x - 1)
        return torch.stack([mlp_forward(one, self.rows, self.layers).argmax(-1) for one in theta])


@dataclass(frozen=True, slots=True)
class _Model:
    """A trained MLP: flat parameters and layers, and the standardized other half of the data.

    rest: which rows of the table those are.
    """

    parameters: Float[Tensor, " d"]
    layers: tuple[int, ...]
    rows: Float[Tensor, "b k"]
    labels: Int[Tensor, " b"]
    rest: Indices
    table: Table


class MetricScenario(OneProblem):
    """The scenario `metric`."""

    black_box = True
    default_clients: ClassVar[int] = 7
    default_rounds: ClassVar[int] = 50
    suggested: ClassVar[Suggestions] = {
        **WITHOUT_GRADIENTS,
        ZerothOrderConfig: {"client.mu": 1.0},
        ProbesConfig: {"client.mu": 1.0},
        SurrogateConfig: {
            "strategy.probe_radius": 0.05,
            "strategy.num_directions": 5,
            "strategy.design": "private",
            "strategy.initial_step": 0.3,
            "strategy.min_step": 0.03,
            "strategy.max_step": 0.3,
        },
    }

    def __init__(self, config: MetricConfig, *, num_clients: int, seed: int) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        model = _train(config, written_at(config.path))
        generator = stream(seed, "metric", "partition")
        owners, classes = model.table.owners, config.classes_per_client
        if owners is not None:
            parts = by_owner(owners, model.rest, num_clients)
        else:
            parts = by_label(model.labels.numpy(), num_clients, classes, generator=generator)
        if min(map(len, parts)) == 0:
            raise ConfigError(
                f"{num_clients} clients of {classes} classes leave one without"
                " rows; lower --clients or raise scenario.classes_per_client"
            )
        used = [torch.from_numpy(generator.permutation(part)) for part in parts]
        if config.max_rows:
            used = [part[: config.max_rows] for part in used]
        self._objectives = [_objective(model, config, part) for part in used]
        self._everyone = _objective(model, config, torch.cat(used))
        self._names = model.table.words if config.data == "csv" else ()

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        return cohort_of([self._objectives[client] for client in client_ids])

    def problem(self, index: int) -> Problem:
        start = torch.full((self._everyone.dim,), 0.5, dtype=torch.float64)
        return KnownProblem(start, self._judge, lower=0.0, upper=1.0)

    def _judge(self, x: Float[Tensor, " d"]) -> Report:
        """Return F, and the metric over all rows, also of each class that has a name."""
        each = torch.stack([client.value(x) for client in self._objectives])
        everyone, metric = self._everyone, self._everyone.metric
        metrics = {f"all_rows_{metric}": 1 - float(everyone.value(x))}
        if self._names:
            said = everyone.predicted(x.unsqueeze(0).to(everyone.center))
            scores, _ = class_scores(said, everyone.labels, len(self._names), metric)
            named = zip(self._names, scores[0].tolist(), strict=True)
            metrics |= {f"{metric}_{name}": score for name, score in named}
        return Report(float(each.mean()), metrics)


def _objective(model: _Model, config: MetricConfig, rows: Int[Tensor, " b"]) -> MetricObjective:
    return MetricObjective(
        model.parameters,
        model.layers,
        model.rows[rows],
        model.labels[rows],
        config.metric,
        config.radius,
    )


@functools.lru_cache(maxsize=1)
def _train(config: MetricConfig, version: tuple[int, ...]) -> _Model:  # noqa: ARG001
    """Train the MLP on one half of the table with scikit-learn's L-BFGS, as the paper does.

    version: of the file, which may be written anew between two runs of a process.
    """
    table = load_table(config.data, config.path, config.csv, config.target)
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ConfigError(
            "scenario metric needs scikit-learn; pip install 'fedzo[data]'"
        ) from error
    order = stream(config.training_seed, "metric", "halves").permutation(len(table))
    train, rest = order[: len(table) // 2], order[len(table) // 2 :]
    mean, spread = table.features[train].mean(axis=0), table.features[train].std(axis=0)
    features = (table.features - mean) / np.where(spread > 0, spread, 1)
    classifier = MLPClassifier(  # type: ignore[no-untyped-call]
        config.layers(),
        solver="lbfgs",
        alpha=1e-5,
        max_iter=config.max_iterations,
        random_state=config.training_seed,
    )
    limits = threadpool_limits(1)  # type: ignore[no-untyped-call]
    with limits, warnings.catch_warnings():  # more threads would round, and so train, differently
        warnings.simplefilter("ignore", ConvergenceWarning)  # the paper stops at 300 iterations
        classifier.fit(features[train], table.labels[train])
    missing = set(range(len(table.names))) - set(classifier.classes_.tolist())
    if missing:
        raise ConfigError(
            f"the training half must hold every class; {len(missing)} of {len(table.names)} are"
            f" missing; use another table or scenario.training_seed"
        )
    coefs, shifts = classifier.coefs_, classifier.intercepts_
    if len(table.names) == 2:  # one logit there; here one of each class, whose difference it is
        coefs = [*coefs[:-1], np.hstack([-coefs[-1] / 2, coefs[-1] / 2])]
        shifts = [*shifts[:-1], np.hstack([-shifts[-1] / 2, shifts[-1] / 2])]
    pairs = zip(coefs, shifts, strict=True)
    flat = [torch.from_numpy(part).flatten() for pair in pairs for part in pair]
    return _Model(
        torch.cat(flat).float(),
        (features.shape[1], *config.layers(), len(table.names)),
        torch.from_numpy(features[rest]).float(),
        torch.from_numpy(table.labels[rest]),
        rest,
        table,
    )

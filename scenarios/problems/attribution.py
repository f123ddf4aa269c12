"""Which words decide what black-box classifiers say of a sequence: attribution by replacing them.

    z_j(x) = a word that is drawn, with chance x_j, else word j;    x in [0, 1]^l, at first 1/2
    f_i(x) = E p_i(class | z(x)) + penalty mean_j x_j;              F(x) = (1/N) sum_i f_i(x)

class is what the classifiers say of the sequence, in the mean. F is low where the words that carry
it are replaced and no others, so x is the attribution: near 1 for words that matter, near 0 for the
rest. Replacements instead of gaps keep sequences natural, and the importance of all words is
learned from replacing random sets of them, as in ReAGent (Zhao & Shan, arXiv 2402.00794); the
objective is a meaningful perturbation (Fong & Vedaldi, ICCV 2017). The slope of E p at x = 1/2 is
minus each word's Banzhaf value. A query asks for `draws` sequences, with the same chances and words
whenever a client is asked, so f_i is a step function of x; draws differ between clients.

Every sequence is a problem. Metrics, known to the simulation and free of queries, of the words of
highest x, as many as `planted` (or `top` of all where nothing is known): comprehensiveness, how
much p falls when they are replaced, and sufficiency, how much when all others are (DeYoung et al.,
"ERASER", ACL 2020); found, the share of the planted words among them.

Classifiers: small networks that know praise from blame, each trained on sentences of its own, or a
function of yours, tokens [b, l] to logits [b, k], with sequences of yours; see
scenarios.victims.sequence_classifiers.
Differs from ReAGent: it adds up changes over random sets until the prediction is gone; replacements
are drawn as words are frequent, not by a language model; sequences are classified, not continued.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fedzo.config import check_types, require, require_nonnegative
from fedzo.errors import ConfigError
from fedzo.objectives.cohort import CohortObjective, cohort_of
from fedzo.objectives.problem import Problem, Report
from fedzo.protocol.questions.probes import ProbesConfig
from fedzo.protocol.questions.surrogate import SurrogateConfig
from fedzo.protocol.questions.training_config import ZerothOrderConfig
from fedzo.randomness import stream
from fedzo.records.history import RoundRecord
from fedzo.used_with import UsedWith, one_of, other_than
from fedzo.user_code import load_object
from scenarios.problems.highest_words import found_share, highest_words
from scenarios.problems.one_problem import KnownProblem, OneProblem
from scenarios.problems.scenario import JUDGED_HERE, WITHOUT_GRADIENTS, Suggestions
from scenarios.victims.sequence_classifiers import (
    WORDS,
    Classifier,
    OwnClassifier,
    ReaderClassifier,
    chances_of,
    make_reviews,
    read_sequences,
    trained_reader,
)

_JUDGED_BY = 200
"""Sequences in which words are replaced for the metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionConfig:
    """Settings.

    num_sequences: problems. length: words of a made sequence. penalty: of replacing all words.
    draws: sequences a query asks for. top: share of the words that metrics look at where the
    planted ones are not known. model: "file.py:function" of whole numbers [b, l] that returns
    logits [b, k]; sequences: an .npz with `tokens` [n, l] for it, and maybe `words`, the word of
    every number. victim_seed: of the training, apart from the run's seed.
    """

    num_sequences: int = 4
    length: int = 16
    penalty: float = 0.5
    draws: int = 20
    top: float = 0.2
    model: str = ""
    sequences: str = ""
    victim_seed: int = 0
    noise_std: float = 0.0
    USED_WITH: ClassVar[UsedWith] = {
        "strategy.min_judges": JUDGED_HERE,
        "strategy.judges": JUDGED_HERE,
        "sequences": other_than("model", ""),
        "top": other_than("model", ""),
        "length": one_of("model", ""),
    }

    @property
    def own_data(self) -> bool:
        """Whether the model, and the sequences, are the user's own."""
        return bool(self.model)

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("num_sequences", "draws"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.length >= 6, "length", self.length, "at least 6")
        require(0 < self.top < 1, "top", self.top, "above 0, below 1")
        require(self.victim_seed >= 0, "victim_seed", self.victim_seed, "0 or more")
        require_nonnegative("penalty", self.penalty)
        require_nonnegative("noise_std", self.noise_std)
        if self.model and not self.sequences:
            raise ConfigError("scenario.model needs sequences; give scenario.sequences=FILE.npz")


@dataclass(frozen=True, slots=True)
class Replacing:
    """What chance decides: k times, which of l words are replaced at x, and by what."""

    chances: Float[Tensor, "k l"]
    words: Int[Tensor, "k l"]

    def sequences(self, tokens: Int[Tensor, " l"], x: Float[Tensor, "q l"]) -> Int[Tensor, "q k l"]:
        """Return the sequence with words replaced, k times for every x."""
        return torch.where(self.chances < x.unsqueeze(1), self.words, tokens)


@dataclass(frozen=True)
class AttributionObjective:
    """A client's f_i."""

    classifier: Classifier
    tokens: Int[Tensor, " l"]
    wanted: int
    replacing: Replacing
    penalty: float
    lower: float = 0.0
    upper: float = 1.0

    @property
    def dim(self) -> int:
        """Of x: the number of words."""
        return len(self.tokens)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        points = x.reshape(-1, self.dim)
        left = chances_of(self.classifier, self.replacing.sequences(self.tokens, points))
        values = left[..., self.wanted].mean(dim=1) + self.penalty * points.double().mean(dim=1)
        return values.reshape(x.shape[:-1])


class AttributionScenario(OneProblem):
    """The scenario `attribution`."""

    black_box = True
    default_rounds: ClassVar[int] = 50
    suggested: ClassVar[Suggestions] = {
        **WITHOUT_GRADIENTS,
        ZerothOrderConfig: {"client.mu": 0.3},
        ProbesConfig: {"client.mu": 0.3},
        SurrogateConfig: {
            "strategy.num_directions": 5,
            "strategy.probe_radius": 0.2,
            "strategy.initial_step": 0.3,
            "strategy.min_step": 0.03,
            "strategy.max_step": 0.5,
        },
    }

    def __init__(self, config: AttributionConfig, *, num_clients: int, seed: int) -> None:
        self.num_clients = num_clients
        self.noise_std = config.noise_std
        self._config, self._seed = config, seed
        self._wanted: dict[int, int] = {}
        self.planted: Bool[Tensor, "n l"] | None = None
        if config.model:
            function = load_object(config.model, what="scenario.model")
            self.classifiers: list[Classifier] = [OwnClassifier(function)] * num_clients
            tokens, self.words = read_sequences(Path(config.sequences))
            most = f"at most {len(tokens)}, as many as there are"
            wanted = config.num_sequences
            require(wanted <= len(tokens), "num_sequences", wanted, most)
        else:
            self.classifiers = [
                ReaderClassifier(
                    trained_reader(
                        config.length,
                        generator=stream(config.victim_seed, "attribution", "reader", client),
                    )
                )
                for client in range(num_clients)
            ]
            generator = stream(seed, "attribution", "sequences")
            made = make_reviews(max(100, config.num_sequences), config.length, generator=generator)
            tokens, self.words, self.planted = made.tokens, WORDS, made.planted
        self.tokens, self._frequent = tokens[: config.num_sequences], tokens.flatten()
        self.num_problems = len(self.tokens)

    def cohort(self, client_ids: Sequence[int], problem: int) -> CohortObjective:
        tokens, wanted = self.tokens[problem], self.wanted(problem)
        return cohort_of(
            [
                AttributionObjective(
                    self.classifiers[client],
                    tokens,
                    wanted,
                    self._replacing(self._config.draws, problem, client),
                    self._config.penalty,
                )
                for client in client_ids
            ]
        )

    def problem(self, index: int) -> Problem:
        start = torch.full((self.tokens.shape[1],), 0.5)
        return KnownProblem(start, partial(self._judge, index), 0.0, 1.0, index, image=False)

    def wanted(self, problem: int) -> int:
        """Return what the classifiers say of a sequence, in the mean of their chances."""
        if problem not in self._wanted:
            said = self._averaged(self.tokens[problem].unsqueeze(0))[0]
            self._wanted[problem] = int(said.argmax())
        return self._wanted[problem]

    def draw(
        self, path: Path, solutions: Sequence[Float[Tensor, " d"]], history: Sequence[RoundRecord]
    ) -> None:
        """Draw the sequences, a row each, every word on a color that says how much it matters."""
        from matplotlib.figure import Figure  # matplotlib: for who draws

        from fedzo.records.figure_text import figure_text
        from fedzo.records.plots import save_figure

        table = torch.stack(list(solutions)).numpy()
        rows, columns = table.shape
        size = (max(6.0, 0.75 * columns), 1.2 + 0.45 * rows)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        shown = axes.imshow(table, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
        for (row, column), share in np.ndenumerate(table):
            word, color = figure_text(self._word(row, column)), "white" if share > 0.7 else "black"
            axes.text(column, row, word, ha="center", va="center", fontsize=7, color=color)
        axes.set_xticks([])
        axes.set_yticks(range(rows), [f"class {self.wanted(row)}" for row in range(rows)])
        told = "" if self.planted is None else "; in brackets: planted words"
        axes.set_title(f"how much each word matters for what is said{told}", fontsize="small")
        figure.colorbar(shown, ax=axes, label="x: chance to be replaced")
        save_figure(figure, path)

    def _word(self, problem: int, place: int) -> str:
        """Return a word, or its number where there are no words; in brackets if it was planted."""
        token = int(self.tokens[problem, place])
        word = self.words[token] if self.words else str(token)
        planted = self.planted is not None and bool(self.planted[problem, place])
        return f"[{word}]" if planted else word

    def _judge(self, problem: int, x: Float[Tensor, " l"]) -> Report:
        clients = range(self.num_clients)
        values = self.cohort(clients, problem).value(x.expand(len(clients), 1, -1))
        return Report(float(values.mean()), self.faithfulness(problem, x))

    def faithfulness(self, problem: int, x: Float[Tensor, " l"]) -> dict[str, float]:
        """Return the metrics of the words of highest x.

        Where several words have the x at which the cut is, chance decides which of them count, anew
        each time that words are replaced.
        """
        tokens, wanted = self.tokens[problem], self.wanted(problem)
        planted = None if self.planted is None else self.planted[problem]
        count = round(self._config.top * len(x)) if planted is None else int(planted.sum())
        count = max(1, count)
        drawn = self._replacing(_JUDGED_BY, problem, self.num_clients)
        ties = stream(self._seed, "attribution", "ties", problem)
        best = highest_words(x, count, _JUDGED_BY, generator=ties)
        sequences = torch.where(torch.stack([best, ~best]), drawn.words, tokens)
        left = self._averaged(sequences)[..., wanted].mean(dim=1)
        whole = float(self._averaged(tokens.unsqueeze(0))[0, wanted])
        found = {} if planted is None else {"found": found_share(planted, x, count)}
        return {
            "comprehensiveness": whole - float(left[0]),
            "sufficiency": whole - float(left[1]),
            **found,
        }

    def _averaged(self, sequences: Int[Tensor, "*n l"]) -> Float[Tensor, "*n k"]:
        different = self.classifiers[:1] if self._config.model else self.classifiers
        each = [chances_of(classifier, sequences) for classifier in different]
        return torch.stack(each).mean(dim=0)

    def _replacing(self, count: int, problem: int, client: int) -> Replacing:
        generator = stream(self._seed, "attribution", "replacing", problem, client)
        shape = (count, self.tokens.shape[1])
        chances = torch.from_numpy(generator.random(shape))
        return Replacing(
            chances, self._frequent[generator.integers(len(self._frequent), size=shape)]
        )

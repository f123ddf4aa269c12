"""Classifiers of sequences: yours, or small networks that learn who praises from made sentences.

    a sentence: words that say nothing, and one to three opinions at random places
    an opinion: a word that praises or blames, in four of ten after a negation, which turns it
    label: 1 if the opinions praise in sum, 0 if they blame; sentences whose sum is 0 are not made

So it is known which words carry a label: opinions of that kind with their negations, the `planted`
ones. A network has a
vector for every word, a convolution over windows of three, the largest value over the places, and
two scores. Each is trained on sentences of its own. Shapes: tokens [n, l], whole numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from fedzo.attacks.victims.victim import called, read_answers
from fedzo.errors import ConfigError, ObjectiveError
from scenarios.data.networks import load_parameters
from scenarios.victims.attack_data import UNREADABLE
from scenarios.victims.victims import Training, fit

_SPOKEN = {
    "praise": "good great lovely superb brilliant moving funny charming clever gripping",
    "blame": "bad dull awful boring clumsy poor tedious lazy noisy shallow",
    "negations": "not never hardly",
    "others": "the a this that film story plot scene actor director music light sound was is seems"
    " felt and with for about in on at whole first second last part evening people we they who saw",
}
_PRAISE, _BLAME, _NEGATIONS, _OTHERS = (words.split() for words in _SPOKEN.values())
WORDS = [*_PRAISE, *_BLAME, *_NEGATIONS, *_OTHERS]
_TRAINED_ON, _TRAINING = 1500, Training(epochs=6, batch_size=50, lr=1e-2)


_LARGEST = 2**31 - 1

Classifier = Callable[[Int[Tensor, "b l"]], Float[Tensor, "b k"]]
"""Tokens to the chances of classes."""


@dataclass(frozen=True, slots=True)
class Reviews:
    """Sentences, what they say, and which of their words decide it."""

    tokens: Int[Tensor, "n l"]
    labels: Int[Tensor, " n"]
    planted: Bool[Tensor, "n l"]


def make_reviews(count: int, length: int, *, generator: np.random.Generator) -> Reviews:
    """Make sentences of at least 6 words."""
    made = [_review(length, generator) for _ in range(count)]
    tokens, labels, planted = (np.stack(parts) for parts in zip(*made, strict=True))
    return Reviews(*(torch.from_numpy(part) for part in (tokens, labels, planted)))


class Reader(nn.Module):
    """A network that scores sentences: tokens [b, l] to [b, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Linear(len(WORDS), 16)
        self.windows = nn.Conv1d(16, 32, 3, padding=1)
        self.scores = nn.Linear(32, 2)

    def forward(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b 2"]:
        """Return the scores of blame and praise."""
        words = nn.functional.one_hot(tokens, len(WORDS)).to(self.vectors.weight.dtype)
        seen = self.windows(self.vectors(words).transpose(1, 2)).relu().amax(dim=2)
        scores: Tensor = self.scores(seen)
        return scores


def trained_reader(length: int, *, generator: np.random.Generator) -> Reader:
    """Return a network that was trained on sentences of its own."""
    reviews = make_reviews(_TRAINED_ON, length, generator=generator)
    with torch.device("meta"):
        reader = Reader()
    found = fit(reader, reviews.tokens, reviews.labels, _TRAINING, generator=generator)
    load_parameters(reader, found)
    return reader


@dataclass(frozen=True, slots=True)
class OwnClassifier:
    """A function of yours: whole numbers [b, l] to logits [b, k]."""

    function: Callable[[NDArray[np.int64]], Any]

    def __call__(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b k"]:
        """Return chances; raises ObjectiveError where the function fails or says anything else."""
        told = called(self.function, tokens.numpy().astype(np.int64), "tokens")
        try:
            scores = read_answers(told, len(tokens), "logits", partial=False).scores
        except ObjectiveError as error:
            raise ObjectiveError(
                f"scenario.model must return finite logits [{len(tokens)}, classes] for"
                f" {len(tokens)} sequences; it returned a {type(told).__name__} of shape"
                f" {np.shape(told)}"
            ) from error
        assert scores is not None
        return scores.double().softmax(dim=1)


@dataclass(frozen=True, slots=True)
class ReaderClassifier:
    """A trained network."""

    reader: Reader

    def __call__(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b 2"]:
        """Return the chances of blame and praise."""
        with torch.no_grad():
            chances: Tensor = self.reader(tokens).double().softmax(dim=1)
        return chances


def chances_of(classifier: Classifier, sequences: Int[Tensor, "*n l"]) -> Float[Tensor, "*n k"]:
    """Return a classifier's chances of the classes."""
    flat = classifier(sequences.reshape(-1, sequences.shape[-1]))
    return flat.reshape(*sequences.shape[:-1], -1)


def read_sequences(path: Path) -> tuple[Int[Tensor, "n l"], list[str]]:
    """Return tokens, and their words if there are any; raises ConfigError for no tokens."""
    try:
        with np.load(path) as file:
            tokens = np.array(file["tokens"])
            words = [str(word) for word in np.ravel(file["words"])] if "words" in file else []
    except UNREADABLE as e:
        raise ConfigError(
            f"scenario.sequences={path} is no .npz file with an array `tokens` ({e!s:.60})"
        ) from e
    whole = tokens.ndim == 2 and tokens.size and np.issubdtype(tokens.dtype, np.integer)
    most = len(words) - 1 if words else _LARGEST
    if not whole or tokens.min() < 0 or tokens.max() > most:
        allowed = f"from 0 to {most}"
        raise ConfigError(
            f"the tokens of {path} are {tokens.dtype} of shape {tokens.shape}; they must be whole"
            f" numbers [sequences, length] {allowed}"
        )
    return torch.from_numpy(tokens.astype(np.int64)), words


def _review(
    length: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tokens, the label and the planted places of one sentence."""
    first_other = len(WORDS) - len(_OTHERS)
    while True:
        tokens = generator.integers(first_other, len(WORDS), length)
        opinions = np.zeros(length, dtype=int)
        total = 0
        starts = generator.permutation(length // 2)[: generator.integers(1, 4)]
        for start in 2 * starts:
            praises, turned = generator.random(2) < (0.5, 0.4)
            words = _PRAISE if praises else _BLAME
            place = start + 1
            tokens[place] = WORDS.index(words[generator.integers(len(words))])
            if turned:
                tokens[start] = WORDS.index(_NEGATIONS[generator.integers(len(_NEGATIONS))])
            said = 1 if praises != turned else -1
            opinions[place], opinions[start] = said, said if turned else 0
            total += said
        if total:
            return tokens, np.array(int(total > 0)), opinions == np.sign(total)

"""Texts with labels, made of the rated movie snippets in the sources of vaderSentiment.

    snippets      is the snippet's mean rating above 0.5 or below -0.5?
    order         are the two halves of the snippet in their order, or is the second put first?
    order_marked  the same where the mark at the end is kept, which then stands in the middle

Hutto & Gilbert, "VADER", ICWSM 2014: 10,605 snippets of reviews collected by Pang & Lee (2004),
each rated by 20 people from -4 to 4. Only the source distribution has them, in an archive of its
own. In `order` both classes have the same words, which a mean over token vectors hardly tells
apart: what is to be learned is syntax, as in the probing tasks of Conneau et al., ACL 2018.
"""

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fedzo.errors import ConfigError

TextTaskName = Literal["snippets", "order", "order_marked"]
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_TABLE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_CLEAR = 0.5
_FEWEST_WORDS = 8
_MARKS = " .!?;:,-"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A text and its mean rating, -4 to 4."""

    text: str
    rating: float


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts, and a class 0 or 1 of each."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


def read_snippets(data_dir: str) -> list[Snippet]:
    """Return the snippets of the archive in a folder; raises ConfigError where there is none."""
    path = Path(data_dir or ".") / ARCHIVE
    if not path.is_file():
        raise ConfigError(
            f"this task needs {ARCHIVE} (2.5 MB) in scenario.data_dir={data_dir!r}; pip download"
            " --no-deps --no-binary vaderSentiment --dest DIR vaderSentiment==3.3.2, then set"
            " scenario.data_dir=DIR"
        )
    try:
        lines = _member(_member(path.read_bytes(), _INNER), _TABLE).decode().splitlines()
        rows = [line.split("\t") for line in lines]
        return [Snippet(" ".join(text.split()), float(rating)) for _, rating, text in rows]
    except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
        raise ConfigError(f"{path} is not the archive that was expected: {error}") from error


def labelled(
    name: TextTaskName, snippets: Sequence[Snippet], count: int, *, generator: np.random.Generator
) -> Labelled:
    """Return so many different texts and their labels, drawn at random.

    Raises ConfigError where the snippets do not give as many.
    """
    made: list[tuple[str, int]] = []
    for row in generator.permutation(len(snippets)).tolist():
        moved = bool(generator.integers(2))
        each = _example(name, snippets[row], moved=moved)
        made += [] if each is None else [each]
    if len(made) < count:
        raise ConfigError(f"{count} examples of {name} are asked and there are {len(made)}")
    texts, labels = zip(*made[:count], strict=True)
    return Labelled(texts, labels)


def _example(name: TextTaskName, snippet: Snippet, *, moved: bool) -> tuple[str, int] | None:
    """Return a text and its class; None for a snippet that does not serve."""
    if name == "snippets":
        return None if abs(snippet.rating) <= _CLEAR else (snippet.text, int(snippet.rating > 0))
    words = (snippet.text if name == "order_marked" else snippet.text.rstrip(_MARKS)).split()
    if len(words) < _FEWEST_WORDS:
        return None
    half = len(words) // 2
    return " ".join(words[half:] + words[:half] if moved else words), int(moved)


def _member(archive: bytes, name: str) -> bytes:
    """Return a file of a gzipped archive; raises KeyError where it has none of that name."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        file = opened.extractfile(name)
        if file is None:
            raise KeyError(name)
        return file.read()

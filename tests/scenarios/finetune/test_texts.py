"""The snippets are read out of an archive like the published one, and labelled."""

import io
import tarfile
from pathlib import Path

import pytest

from fedzo.errors import ConfigError
from fedzo.randomness import stream
from scenarios.finetune.texts import ARCHIVE, TextTaskName, labelled, read_snippets

ROWS = (
    (2.5, "One two three  four, five six seven eight nine."),
    (-1.5, "A dull and endless walk through rain and fog"),
    (0.2, "Neither good nor bad but long enough to count here"),
    (3.0, "Too short."),
)
TABLE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"


def archive(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def write(folder: Path, table: str = TABLE, inner: str = INNER) -> str:
    lines = "".join(f"{i}\t{rating}\t{text}\n" for i, (rating, text) in enumerate(ROWS))
    (folder / ARCHIVE).write_bytes(archive(inner, archive(table, lines.encode())))
    return str(folder)


def made(folder: Path, name: TextTaskName, count: int, seed: int = 0) -> list[tuple[str, int]]:
    found = labelled(name, read_snippets(write(folder)), count, generator=stream(seed, "texts"))
    return sorted(zip(found.texts, found.labels, strict=True))


def test_clear_ratings_are_classes(tmp_path: Path) -> None:
    assert made(tmp_path, "snippets", 3) == [
        ("A dull and endless walk through rain and fog", 0),
        ("One two three four, five six seven eight nine.", 1),
        ("Too short.", 1),
    ]


def test_halves_in_order_or_not(tmp_path: Path) -> None:
    seen = {pair for seed in range(9) for pair in made(tmp_path, "order", 3, seed)}
    assert ("One two three four, five six seven eight nine", 0) in seen
    assert ("five six seven eight nine One two three four,", 1) in seen
    assert {text for text, _ in seen if "short" in text} == set()
    assert len(seen) == 6
    marked = {pair for seed in range(9) for pair in made(tmp_path, "order_marked", 3, seed)}
    assert ("five six seven eight nine. One two three four,", 1) in marked


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pip download"):
        read_snippets(str(tmp_path))
    snippets = read_snippets(write(tmp_path))
    with pytest.raises(ConfigError, match="4 examples of order are asked and there are 3"):
        labelled("order", snippets, 4, generator=stream(0, "texts"))
    with pytest.raises(ConfigError, match="not the archive that was expected"):
        read_snippets(write(tmp_path, inner="other.tar.gz"))
    (tmp_path / ARCHIVE).write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="not the archive that was expected"):
        read_snippets(str(tmp_path))

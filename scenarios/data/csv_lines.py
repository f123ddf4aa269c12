"""From a CSV file to its cells: encoding, delimiter, header; what is ambiguous is refused.

Plain or gzipped, UTF-8 (with or without a byte order mark) or UTF-16 with one; the delimiter is a
comma, or what the setting says; blank lines are left out.
"""

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

from fedzo.config import check_types, config_values, default_values, field_names
from fedzo.errors import ConfigError
from fedzo.parts import composed, part
from fedzo.used_with import UsedWith, one_of

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MISSING = frozenset(
    ("", "?", "-", "--", ".", "na", "n/a", "#n/a", "nan", "null", "nil", "none", "missing")
)
"""How a cell says that there is nothing in it."""
_LOOKED_AT = 200
"""Lines that the delimiter is found by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFormat:
    """How a CSV file is written; what is not said is found, and refused where it is ambiguous.

    missing: lines with a missing cell are refused, left out (drop), or a missing cell in a column
    of text is a value of its own (keep). decimal, thousands: the signs inside numbers.
    client_column: that says whose a row is, a client for every value in it; empty splits at random.
    """

    header: Literal["auto", "yes", "no"] = "auto"
    delimiter: Literal["auto", "comma", "semicolon", "tab", "bar"] = "auto"
    missing: Literal["refuse", "drop", "keep"] = "refuse"
    decimal: Literal["point", "comma"] = "point"
    thousands: Literal["none", "comma", "point", "space"] = "none"
    client_column: str = ""
    USED_WITH: ClassVar[UsedWith] = dict.fromkeys(
        ("header", "delimiter", "missing", "decimal", "thousands", "client_column"),
        one_of("data", "csv"),
    )

    def __post_init__(self) -> None:
        check_types(self)
        if self.decimal == self.thousands:
            raise ConfigError(f"decimal={self.decimal} and thousands={self.thousands} must differ")

    def number(self, cell: str) -> float | None:
        """Return the finite number in a cell, None for anything else."""
        if self.thousands == "none" and self.decimal == "point":
            return _finite(cell)
        group = {"none": "", "comma": ",", "point": r"\.", "space": " "}[self.thousands]
        text, rest = cell, "," if self.decimal == "comma" else r"\."
        grouped = rf"[+-]?\d{{1,3}}({group}\d{{3}})+({rest}\d*)?([eE][+-]?\d+)?"
        if group and re.fullmatch(grouped, cell, re.ASCII):
            text = re.sub(group, "", cell)
        if self.decimal == "comma":
            text = text.replace(",", ".") if "." not in text else "?"
        return _finite(text)


@composed
class TableFormat:
    """How a CSV file is written, and how its columns are read.

    text_columns: names, separated by commas, of columns of numbers that are names of something.
    """

    csv: CsvFormat = part(CsvFormat)
    text_columns: str = ""
    USED_WITH: ClassVar[UsedWith] = {"text_columns": one_of("data", "csv")}


def is_missing(cell: str) -> bool:
    """Return whether a cell says that there is nothing in it."""
    return cell.casefold() in MISSING


def _finite(text: str) -> float | None:
    number = float(text) if _PLAIN.fullmatch(text) else math.inf
    return number if abs(number) < math.inf else None


def written_at(path: str) -> tuple[int, ...]:
    """Return when a file was written, and its size: another pair is another content."""
    if not path:
        return ()
    try:
        found = Path(path).stat()
    except OSError:  # whoever reads it says so
        return ()
    return found.st_mtime_ns, found.st_size


def require_csv(config: Any) -> None:
    """Raise ConfigError for settings of CSV files, and paths, where no file is read."""
    if config.data == "csv":
        return
    names = [*field_names(TableFormat), "target"]
    if config.data not in ("california", "covertype"):  # whose path is scikit-learn's data home
        names.append("path")
    values, usual = config_values(config), default_values(type(config))
    for name in (name for name in names if name in values):
        value = values[name]
        if value != usual[name]:
            raise ConfigError(f"{name}={value} has no effect with data={config.data}; add data=csv")


def require_one_split(config: Any, *names: str) -> None:
    """Raise ConfigError for settings of a random split where a column says whose a row is."""
    usual = default_values(type(config))
    for name in names if config.client_column.strip() else ():
        value = getattr(config, name)
        if value != usual[name]:
            raise ConfigError(
                f"{name}={value} has no effect with client_column={config.client_column}, which"
                " says whose a row is; leave out one of the two"
            )


@dataclass(frozen=True, slots=True)
class Cells:
    """Stripped cells by row, the line on which each begins, and the columns' names."""

    path: Path
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]
    delimiter: str
    has_header: bool

    def wrong(self, row: int, column: int, what: str) -> ConfigError:
        """Return an error with file, line and column."""
        return ConfigError(
            f"scenario.path={str(self.path)!r}, line {self.lines[row]}, column"
            f" {self.names[column]!r}: {what}"
        )


def read_cells(path: Path, layout: CsvFormat) -> Cells:
    """Return the cells of a CSV file.

    Raises ConfigError for what cannot be read, lines of different length, and names that are
    missing or repeat.
    """
    text = _text(path)
    delimiter = layout.delimiter if layout.delimiter != "auto" else _delimiter(path, text)
    numbered = _parsed(path, text, DELIMITERS[delimiter])
    if not numbered:
        raise ConfigError(f"scenario.path={str(path)!r} is empty; name a file with a table")
    _check_lengths(path, numbered, delimiter)
    lines, rows = [line for line, _ in numbered], [row for _, row in numbered]
    header = layout.header == "yes"
    if layout.header == "auto":
        header = _has_header(path, rows, layout)
    names = rows[0] if header else [f"column{i + 1}" for i in range(len(rows[0]))]
    _check_names(path, names)
    body = 1 if header else 0
    if len(rows) == body:
        raise ConfigError(f"scenario.path={str(path)!r} holds a header and no rows")
    return Cells(path, names, rows[body:], lines[body:], delimiter, header)


def _text(path: Path) -> str:
    try:
        stored = path.read_bytes()
        raw = gzip.decompress(stored) if stored[:2] == b"\x1f\x8b" else stored
        wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"scenario.path={str(path)!r}, line {line}: the text is not UTF-8; save it as such"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"scenario.path={str(path)!r} cannot be read: {error}") from error
    if "\0" in text:
        raise ConfigError(f"scenario.path={str(path)!r} is no text: it holds zero bytes")
    return text


def _parsed(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return rows with the line that each begins on, without blank lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, before = [], 0
    try:
        for row in reader:
            if any(cell.strip() for cell in row) or len(row) > 1:
                rows.append((before + 1, [" ".join(cell.split()) for cell in row]))
            before = reader.line_num
    except csv.Error as error:
        raise ConfigError(
            f"scenario.path={str(path)!r}, line {before + 1}: {error}; check its quotes"
        ) from error
    return rows


def _delimiter(path: Path, text: str) -> str:
    """Return `comma`; raises ConfigError where another delimiter cuts the lines evenly."""
    widths: dict[str, set[int]] = {}
    for name, sign in DELIMITERS.items():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign)
        try:
            found = [len(row) for row, _ in zip(reader, range(_LOOKED_AT), strict=False) if row]
        except csv.Error:  # said by the reader that follows
            continue
        if found and max(found) > 1:
            widths[name] = set(found)
    even = [name for name, each in widths.items() if len(each) == 1]
    others = [name for name in even if name != "comma"]
    if others:
        raise ConfigError(
            f"scenario.path={str(path)!r}: its delimiter looks like a {' or '.join(even)}; say"
            f" scenario.delimiter={others[0]}, or comma where that is right"
        )
    return "comma"


def _check_lengths(path: Path, numbered: Sequence[tuple[int, list[str]]], delimiter: str) -> None:
    width = len(numbered[0][1])
    if width < 2:
        raise ConfigError(
            f"scenario.path={str(path)!r} is no table: line {numbered[0][0]} has one column with"
            f" {delimiter} as the delimiter; separate at least two by a comma, semicolon, tab or"
            " bar"
        )
    for line, row in numbered:
        if len(row) != width:
            raise ConfigError(
                f"scenario.path={str(path)!r}, line {line}: {len(row)} cells, and {width} in the"
                f" first line; every line needs the same number of columns (delimiter: {delimiter})"
            )


def _check_names(path: Path, names: Sequence[str]) -> None:
    for position, name in enumerate(names, start=1):
        if not name:
            raise ConfigError(
                f"scenario.path={str(path)!r}: column {position} has no name (an index, or lines"
                " that end with a delimiter?); name it, or remove it"
            )
        if names.index(name) + 1 < position:
            raise ConfigError(
                f"scenario.path={str(path)!r}: columns {names.index(name) + 1} and {position} are"
                f" both named {name!r}; names must not repeat"
            )


def _has_header(path: Path, rows: Sequence[Sequence[str]], layout: CsvFormat) -> bool:
    """Return whether the first row is one of names; raises ConfigError where it may be."""
    first, rest = rows[0], rows[1:]
    numeric = [layout.number(cell) is not None for cell in first]
    below = [any(layout.number(row[i]) is not None for row in rest) for i in range(len(first))]
    pairs = list(zip(numeric, below, first, strict=True))
    if any(under and not own and cell and not is_missing(cell) for own, under, cell in pairs):
        return True
    if not rest and not any(numeric):
        return True
    turned = any(own and rest and not under for own, under, _ in pairs)
    if not any(numeric) or turned or _counts(first, rest):
        raise ConfigError(
            f"scenario.path={str(path)!r}: line 1 ({', '.join(first)[:60]}) may be names or"
            " numbers of a row; say which with scenario.header=yes or scenario.header=no"
        )
    return False


def _counts(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Return whether a row of numbers looks like names: 0, 1, 2, or years above fractions."""
    whole = [int(cell) for cell in first if re.fullmatch(r"\d+", cell, re.ASCII)]
    if len(whole) < len(first):
        return False
    steps = {after - before for before, after in pairwise(whole)}
    fractions = any(all("." in row[i] for row in rest) for i in range(len(first)) if rest)
    return steps == {1} or (min(steps) > 0 and fractions)

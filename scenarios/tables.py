"""Tables with a class in the last column, from packages and files; nothing is downloaded.

digits: 1,797 8x8 digits of scikit-learn (BSD-3) as 64 features. csv: any CSV file, plain or
gzipped, with or without a header. covertype: scikit-learn's copy of Covertype in its data home.
"""

import csv
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedzo.errors import ConfigError

TableName = Literal["digits", "csv", "covertype"]


@dataclass(frozen=True, slots=True)
class Table:
    """Features [n, k] and classes [n], counted from 0; names are the classes in that order."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def load_table(name: TableName, path: str) -> Table:
    """Return a table; path is the CSV file, or scikit-learn's data home ("" for its default).

    Raises ConfigError when the data are not there or not a table, with what to do.
    """
    if name == "csv":
        return _csv(Path(path)) if path else _missing("data=csv needs scenario.path=FILE.csv")
    try:
        from sklearn.datasets import fetch_covtype, load_digits
    except ImportError as error:
        raise ConfigError(f"data {name} needs scikit-learn; pip install 'fedzo[data]'") from error
    if name == "digits":
        raw = load_digits()
        return _table(raw.data, [str(label) for label in raw.target])
    try:
        raw = fetch_covtype(data_home=path or None, download_if_missing=False)
    except OSError as error:
        raise ConfigError(
            f"data covertype is not in scikit-learn's data home ({error}); call"
            " sklearn.datasets.fetch_covtype() once on a machine with a network, or set"
            " scenario.path to a data home that has it"
        ) from error
    return _table(raw.data, [str(label) for label in raw.target])


def _missing(sentence: str) -> Table:
    raise ConfigError(sentence)


def read_rows(path: Path) -> list[list[str]]:
    """Return the cells of a CSV file, plain or gzipped, header included.

    Raises ConfigError for what cannot be read or has lines of different length.
    """
    try:
        stored = path.read_bytes()
        text = (gzip.decompress(stored) if path.suffix == ".gz" else stored).decode()
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ConfigError(f"scenario.path={str(path)!r} cannot be read: {error}") from error
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        raise ConfigError(
            f"scenario.path={str(path)!r} is no table: every line needs the same number of columns,"
            " at least two"
        )
    return rows


def _csv(path: Path) -> Table:
    rows = read_rows(path)
    if not _is_number(rows[0][0]):
        rows = rows[1:]
    try:
        features = np.array([[float(cell) for cell in row[:-1]] for row in rows])
    except ValueError as error:
        raise ConfigError(
            f"scenario.path={str(path)!r}: {error}; all columns but the last must be numbers"
        ) from error
    if not np.isfinite(features).all():
        raise ConfigError(
            f"scenario.path={str(path)!r} holds numbers that are not finite; remove their lines"
        )
    return _table(features, [row[-1] for row in rows])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _table(features: NDArray[np.float64], classes: Sequence[str]) -> Table:
    names, labels = np.unique(np.asarray(classes), return_inverse=True)
    if len(names) < 2:
        raise ConfigError(f"the table has {len(names)} class; a classifier needs at least two")
    return Table(features.astype(np.float64), labels.astype(np.int64), tuple(names.tolist()))

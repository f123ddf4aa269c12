"""Tables with a class in the last column, from packages and files; nothing is downloaded.

digits: 1,797 8x8 digits of scikit-learn (BSD-3) as 64 features. csv: a CSV file, see
scenarios.data.csv_lines. covertype: scikit-learn's copy of Covertype in its data home.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedzo.errors import ConfigError
from scenarios.data.csv_lines import CsvFormat, TableFormat
from scenarios.data.csv_table import read_csv

TableName = Literal["digits", "csv", "covertype"]


@dataclass(frozen=True, slots=True)
class Table:
    """Features [n, k] and classes [n], counted from 0; names are the classes in that order."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def load_table(name: TableName, path: str, layout: CsvFormat | None = None) -> Table:
    """Return a table; path is the CSV file, or scikit-learn's data home ("" for its default).

    Raises ConfigError when the data are not there or not a table, with what to do.
    """
    if name == "csv":
        if not path:
            raise ConfigError("data=csv needs scenario.path=FILE.csv")
        return _csv(Path(path), layout or CsvFormat())
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


def _csv(path: Path, layout: CsvFormat) -> Table:
    found = read_csv(path, TableFormat(csv=layout), "", labels=True)
    features = {name: values for name, values in found.columns.items() if name != found.goal}
    for name, values in features.items():
        if values.dtype.kind == "U":
            raise ConfigError(
                f"scenario.path={str(path)!r}: column {name!r} is text, such as"
                f" {str(values[0])[:40]!r}; all columns but the last must be numbers"
            )
    labels = found.columns[found.goal].tolist()
    if len(set(labels)) == len(labels):
        raise ConfigError(
            f"scenario.path={str(path)!r}: column {found.goal!r}, the class, differs in every row;"
            " put the class last, or use the scenario regression"
        )
    return _table(np.stack(list(features.values()), axis=1), labels)


def _table(features: NDArray[np.float64], classes: Sequence[str]) -> Table:
    names, labels = np.unique(np.asarray(classes), return_inverse=True)
    if len(names) < 2:
        raise ConfigError(f"the table has {len(names)} class; a classifier needs at least two")
    return Table(features.astype(np.float64), labels.astype(np.int64), tuple(names.tolist()))

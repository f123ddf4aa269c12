"""Tables with a class in one column, from packages and files; nothing is downloaded.

digits: 1,797 8x8 digits of scikit-learn (BSD-3) as 64 features. csv: a CSV file, see
scenarios.data.csv_lines. covertype: scikit-learn's copy of Covertype in its data home.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedzo.errors import ConfigError
from scenarios.data.csv_lines import CsvFormat, TableFormat
from scenarios.data.csv_table import read_csv

_FEW = 10
"""Classes that are reported one by one."""
TableName = Literal["digits", "csv", "covertype"]


@dataclass(frozen=True, slots=True)
class Table:
    """Features [n, k] and classes [n], counted from 0; names are the classes in that order.

    owners: whose each row is, where the table says so.
    """

    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    owners: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def words(self) -> tuple[str, ...]:
        """The names of the classes where they are few and no numbers, for reports; else nothing."""
        numbers = all(re.fullmatch(r"[+-]?[\d.]+", name) for name in self.names)
        return () if numbers or len(self.names) > _FEW else self.names


def load_table(
    name: TableName, path: str, layout: CsvFormat | None = None, target: str = ""
) -> Table:
    """Return a table, of which `target` ("" for the last) is the class.

    path: the CSV file, or scikit-learn's data home ("" for its default).

    Raises ConfigError when the data are not there or not a table, with what to do.
    """
    if name == "csv":
        if not path:
            raise ConfigError("data=csv needs scenario.path=FILE.csv")
        return _csv(Path(path), layout or CsvFormat(), target)
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


def _csv(path: Path, layout: CsvFormat, target: str) -> Table:
    found = read_csv(path, TableFormat(csv=layout), target, labels=True)
    features = {name: values for name, values in found.columns.items() if name != found.goal}
    for name, values in features.items():
        if values.dtype.kind == "U":
            raise ConfigError(
                f"scenario.path={str(path)!r}: column {name!r} is text, such as"
                f" {str(values[0])[:40]!r}; all columns but the class must be"
                " numbers: write it as columns of 0 and 1, one for each value, or remove it"
            )
    labels = found.columns[found.goal].tolist()
    if len(set(labels)) == len(labels):
        raise ConfigError(
            f"scenario.path={str(path)!r}: column {found.goal!r}, the class, differs in every row;"
            " name the class with scenario.target, or use the scenario regression"
        )
    table = _table(np.stack(list(features.values()), axis=1), labels)
    return replace(table, owners=found.owners)


def _table(features: NDArray[np.float64], classes: Sequence[str]) -> Table:
    names, labels = np.unique(np.asarray(classes), return_inverse=True)
    if len(names) < 2:
        raise ConfigError(f"the table has {len(names)} class; a classifier needs at least two")
    return Table(features.astype(np.float64), labels.astype(np.int64), tuple(names.tolist()))

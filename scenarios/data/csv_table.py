"""From the cells of a CSV file to columns of numbers or of text; nothing is guessed.

A column is one of numbers or one of text: where both occur, or a cell is missing, the file is
refused with line and column, and the setting that would take it. What was found is told.
"""

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedzo.errors import ConfigError
from scenarios.data.csv_lines import Cells, CsvFormat, TableFormat, is_missing, read_cells

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CsvTable:
    """Columns by name, float64 or text, in the file's order; `goal` is the one to predict.

    owners: whose each row is, by the column that says so, which is none of the others.
    """

    columns: Mapping[str, NDArray[Any]]
    goal: str
    owners: NDArray[Any] | None = None


def read_csv(path: Path, layout: TableFormat, goal: str, *, labels: bool) -> CsvTable:
    """Return the columns of a file and tell what it holds; goal "" is the last of them.

    labels: whether the goal is a class, which is text however it looks. Raises ConfigError for what
    is no table, or is not what the layout says.
    """
    csv = layout.csv
    cells = read_cells(path, csv)
    owner, goal = csv.client_column.strip(), goal.strip()
    goal = goal or [name for name in cells.names if name != owner][-1]
    texts = _names("scenario.text_columns", layout.text_columns.split(","), cells.names)
    _names("scenario.target", [goal], cells.names)
    _names("scenario.client_column", [owner], cells.names)
    _check_owner(path, owner, goal, len(cells.names))
    kept = _complete(cells, csv)
    named = [goal, owner] if labels else [owner]
    forced = {*texts, *named}
    columns = {
        name: _column(kept, csv, position, text=name in forced)
        for position, name in enumerate(kept.names)
    }
    for name in filter(None, named):
        _check_spellings(kept, list(kept.names).index(name), csv)
    owners = columns.pop(owner, None)
    _tell(cells, kept, columns, goal)
    if owners is not None:
        names = ", ".join(f"{i} {name}" for i, name in enumerate(np.unique(owners).tolist()))
        _log.info("%s: clients by %s: %s", path, owner, names)
    return CsvTable(columns, goal, owners)


def _check_owner(path: Path, owner: str, goal: str, width: int) -> None:
    """Refuse a column of clients that is to be predicted, or leaves nothing to predict by."""
    if owner == goal:
        raise ConfigError(
            f"scenario.client_column={owner!r} is the column to predict; name another of the two"
        )
    if owner and width < 3:
        raise ConfigError(
            f"scenario.path={str(path)!r}: beside {goal!r} and scenario.client_column={owner!r}"
            " there is no column to predict by; add one"
        )


def _names(setting: str, wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    found = [name.strip() for name in wanted if name.strip()]
    for name in found:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}? There" if near else "there"
            raise ConfigError(f"{setting}={name!r} is no column; {hint} are {', '.join(names)}")
    return found


def _complete(cells: Cells, layout: CsvFormat) -> Cells:
    """Return the rows without missing cells where they are left out; all of them else."""
    if layout.missing != "drop":
        return cells
    whole = [i for i, row in enumerate(cells.rows) if not any(map(is_missing, row))]
    if not whole:
        raise ConfigError(
            f"scenario.path={str(cells.path)!r}: a cell is missing in every row; remove the column"
            " that is empty, or set scenario.missing=keep"
        )
    return replace(
        cells, rows=[cells.rows[i] for i in whole], lines=[cells.lines[i] for i in whole]
    )


def _column(cells: Cells, layout: CsvFormat, position: int, *, text: bool) -> NDArray[Any]:
    each = [row[position] for row in cells.rows]
    numbers = [None if text else layout.number(cell) for cell in each]
    count = sum(number is not None for number in numbers)
    if count == len(each):
        return np.asarray(numbers, dtype=np.float64)
    present = sum(not is_missing(cell) for cell in each)
    for row, (cell, number) in enumerate(zip(each, numbers, strict=True)):
        keeps = layout.missing == "keep" and count == 0 and present > 0
        if is_missing(cell) and not keeps:
            raise cells.wrong(row, position, _missing_remedy(cell, numeric=count > 0))
        if number is None and count and not is_missing(cell):
            raise cells.wrong(row, position, _number_remedy(cell))
    if not text:
        _check_text(cells, position, each)
    marks = [cell for cell in each if is_missing(cell)]  # one value, however it is written
    return np.asarray([marks[0] if is_missing(cell) else cell for cell in each])


def _missing_remedy(cell: str, *, numeric: bool) -> str:
    what = f"{cell!r} is a missing cell" if cell else "the cell is empty"
    keep = "" if numeric else ", or scenario.missing=keep to make it a value of its own"
    return f"{what}; fill it, or set scenario.missing=drop to leave such lines out{keep}"


def _number_remedy(cell: str) -> str:
    """Say why a cell of a column of numbers is none, and which setting would take it."""
    if re.fullmatch(r"[+-]?inf(inity)?|[+-]?\d[\d.]*[eE]\+?\d+", cell, re.IGNORECASE):
        return f"{cell!r} is not finite; remove the line"
    hint = "correct it"
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", cell, re.ASCII):
        hint = "set scenario.thousands=comma, or scenario.decimal=comma, whichever it is"
    elif re.fullmatch(r"[+-]?\d+,\d+", cell, re.ASCII):
        hint = "set scenario.decimal=comma"
    elif re.fullmatch(r"[+-]?\d{1,3}( \d{3})+([.,]\d*)?", cell, re.ASCII):
        hint = "set scenario.thousands=space"
    elif re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?", cell, re.ASCII):
        hint = "set scenario.thousands=point and scenario.decimal=comma"
    return (
        f"{cell!r} is no number, as others of the column are; {hint}, or name the column in"
        " scenario.text_columns"
    )


def _check_text(cells: Cells, position: int, each: Sequence[str]) -> None:
    """Refuse texts that are numbers in a spelling of their own, and those that name the rows."""
    if all(re.fullmatch(r"[+-]?\d[\d.,_ ]*%?", cell) for cell in each):
        raise cells.wrong(0, position, _number_remedy(each[0]).replace(", as others", ""))
    if len(each) > 2 and len(set(each)) == len(each):
        raise cells.wrong(
            0,
            position,
            f"every row has a text of its own, such as {each[0][:40]!r}: it names rows; remove the"
            " column",
        )


def _check_spellings(cells: Cells, position: int, layout: CsvFormat) -> None:
    """Refuse two spellings of one name, such as 1 and 1.0 or yes and Yes."""
    seen: dict[object, str] = {}
    for row, each in enumerate(cells.rows):
        cell = each[position]
        number = layout.number(cell)
        first = seen.setdefault(cell.casefold() if number is None else number, cell)
        if cell != first:
            raise cells.wrong(
                row, position, f"{cell!r} and {first!r} are two spellings of one name; write one"
            )


def _tell(cells: Cells, kept: Cells, columns: Mapping[str, NDArray[Any]], goal: str) -> None:
    features = {name: values for name, values in columns.items() if name != goal}
    texts = [name for name, values in features.items() if values.dtype.kind == "U"]
    dropped = len(cells.rows) - len(kept.rows)
    _log.info(
        "%s: %d rows%s, %d features (%d numbers, %d text%s), to predict: %s; delimiter %s, header"
        " %s",
        cells.path,
        len(kept.rows),
        f" ({dropped} with missing cells left out)" if dropped else "",
        len(features),
        len(features) - len(texts),
        len(texts),
        f": {', '.join(texts)}" if texts else "",
        goal,
        cells.delimiter,
        "yes" if cells.has_header else "no",
    )

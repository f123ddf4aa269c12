"""Tables are read as they are meant, or refused with file, line and column."""

import gzip
import logging
from pathlib import Path

import numpy as np
import pytest

from fedzo.errors import ConfigError
from scenarios.data.columns import load_columns
from scenarios.data.csv_lines import TableFormat
from scenarios.data.tables import load_table
from scenarios.problems.metric import MetricConfig, MetricScenario
from scenarios.problems.regression import RegressionConfig

PLAIN = "a,b,y\n1.5,2,3\n4,5.5,6\n7,8,9.5\n"


def _file(folder: Path, text: str | bytes, name: str = "t.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def _columns(folder: Path, text: str | bytes, target: str = "", **layout: str) -> dict[str, list]:  # type: ignore[type-arg]
    path = _file(folder, text)
    found, _ = load_columns("csv", path, target, TableFormat(**layout), seed=0)  # type: ignore[arg-type]
    return {name: values.tolist() for name, values in found.values.items()}


NUMBERS = {"a": [1.5, 4, 7], "b": [2, 5.5, 8], "y": [3, 6, 9.5]}


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        pytest.param(PLAIN, {}, id="plain"),
        pytest.param(PLAIN.encode("utf-8-sig"), {}, id="byte order mark"),
        pytest.param(PLAIN.encode("utf-16"), {}, id="utf-16"),
        pytest.param(gzip.compress(PLAIN.encode()), {}, id="gzipped under any name"),
        pytest.param(PLAIN.replace("\n", "\r\n"), {}, id="Windows lines"),
        pytest.param(PLAIN.replace("4,", "\n\n 4 ,") + "\n\n", {}, id="blank lines and spaces"),
        pytest.param(PLAIN.replace("1.5", '"1.5"').replace("a,", '"a",'), {}, id="quotes"),
        pytest.param(PLAIN.replace(",", ";"), {"delimiter": "semicolon"}, id="semicolons"),
        pytest.param(PLAIN.replace(",", "\t"), {"delimiter": "tab"}, id="tabs"),
        pytest.param(
            PLAIN.replace(",", ";").replace(".", ","),
            {"delimiter": "semicolon", "decimal": "comma"},
            id="decimal commas",
        ),
        pytest.param(PLAIN + "1,,2\n3,NA,4\n", {"missing": "drop"}, id="missing cells left out"),
    ],
)
def test_the_same_table_in_other_clothes(
    tmp_path: Path, text: str | bytes, layout: dict[str, str]
) -> None:
    assert _columns(tmp_path, text, **layout) == NUMBERS


@pytest.mark.parametrize("mark", ["", "?", "NA", "N/A", "NaN", "null", "None", "-", ".", " "])
def test_a_missing_cell_is_refused_with_line_and_column(tmp_path: Path, mark: str) -> None:
    with pytest.raises(ConfigError, match=r"t\.csv', line 3, column 'b': .*scenario.missing=drop"):
        _columns(tmp_path, PLAIN.replace("5.5", mark))


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [
        ('"1,234.5"', "scenario.thousands=comma"),
        ('"1,5"', "scenario.decimal=comma"),
        ("1 234", "scenario.thousands=space"),
        ("12%", "is no number"),
        ("1_000", "is no number"),
        ("0x10", "is no number"),
        ("٣", "is no number"),
        ("inf", "not finite"),
        ("-Infinity", "not finite"),
        ("1e999", "not finite"),
        ("2020-01-02", "is no number"),
    ],
)
def test_what_python_or_people_take_for_a_number(tmp_path: Path, cell: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=rf"line 3, column 'b': .*{remedy}"):
        _columns(tmp_path, PLAIN.replace("5.5", cell))


def test_thousands_are_read_where_they_are_said(tmp_path: Path) -> None:
    text = PLAIN.replace("5.5", '"1,234.5"')
    assert _columns(tmp_path, text, thousands="comma")["b"] == [2, 1234.5, 8]
    text = PLAIN.replace(",", ";").replace("5.5", "1.234,5").replace("1.5", "1").replace("9.5", "9")
    layout = {"delimiter": "semicolon", "thousands": "point", "decimal": "comma"}
    assert _columns(tmp_path, text, **layout)["b"] == [2, 1234.5, 8]


@pytest.mark.parametrize("cell", ["1,234,5", "12,345,67", "1,234.5,6", "12,34", ",234", "1234,567"])
def test_thousands_that_are_none_are_no_number(tmp_path: Path, cell: str) -> None:
    with pytest.raises(ConfigError, match=r"line 3, column 'b'"):
        _columns(tmp_path, PLAIN.replace("5.5", f'"{cell}"'), thousands="comma")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("a,b,y\n", "no rows"),
        ("a\n1\n2\n", "one column"),
        (PLAIN.replace(",", ";"), "scenario.delimiter=semicolon"),
        (PLAIN.replace("4,5.5,6", "4,5.5"), "line 3: 2 cells, and 3"),
        (PLAIN.replace("4,5.5,6", "4,5.5,6,7"), "line 3: 4 cells, and 3"),
        (PLAIN.replace("\n", ",\n"), "column 4 has no name"),
        (PLAIN.replace("a,b", ",b"), "column 1 has no name"),
        (PLAIN.replace("a,b", "b, b"), "both named 'b'"),
        (PLAIN.replace("1.5", '"1.5'), "check its quotes"),
        (PLAIN.replace("b", "\0"), "zero bytes"),
        ("a,b,y\n1,2,\xe9\n".encode("latin-1"), "line 2: the text is not UTF-8"),
        (b"\x1f\x8bno gzip at all", "cannot be read"),
        ("0,1,2\n5.5,6.5,7.5\n1.5,2.5,3.5\n", "scenario.header=yes"),
        ("2000,2010,2020\n5.5,6.5,7.5\n", "scenario.header=yes"),
        ("red,small\nblue,big\nred,big\n", "scenario.header=yes"),
        ("a,k,y\n1,x,0\n2,x,0\n3,z,0\n", "constant"),
        ("a,b,y\n1,2,low\n3,4,high\n5,6,low\n", "the target, is text"),
        ("id,b,y\nr1,2,1\nr2,3,2\nr3,3,3\n", "it names rows"),
        ("?,2,5\n1,3,6\n2,4,7\n", "line 1, column 'column1': '\\?' is a missing cell"),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _columns(tmp_path, text)


def test_what_lies_elsewhere_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_columns("csv", str(path), "", seed=0)


def test_years_are_names_where_text_stands_above_numbers(tmp_path: Path) -> None:
    found = _columns(tmp_path, "2020,2021,y\n1,2,3\n4,5,7\n", "2020")
    assert found == {"2020": [1, 4], "2021": [2, 5], "y": [3, 7]}


def test_the_header_is_what_the_setting_says(tmp_path: Path) -> None:
    text = "0,1,2\n5,6,7\n8,9,1\n"
    assert list(_columns(tmp_path, text, header="yes")) == ["0", "1", "2"]
    assert _columns(tmp_path, text, "column1", header="no")["column1"] == [0, 5, 8]


def test_a_column_of_numbers_may_be_one_of_text(tmp_path: Path) -> None:
    text = "zip,b,y\n10,2,3\n20,5,6\n10,8,9\n"
    assert _columns(tmp_path, text, text_columns="zip")["zip"] == ["10", "20", "10"]
    with pytest.raises(ConfigError, match="did you mean 'zip'"):
        _columns(tmp_path, text, text_columns="zipp")
    with pytest.raises(ConfigError, match="'yy' is no column"):
        _columns(tmp_path, text, "yy")


def test_missing_cells_of_text_may_be_kept(tmp_path: Path) -> None:
    text = "k,b,y\nx,2,3\nNA,5,6\nx,8,9\n"
    assert _columns(tmp_path, text, missing="keep")["k"] == ["x", "NA", "x"]
    both = "k,b,y\nx,2,1\nNA,3,2\n,3,3\nx,4,5\n"
    assert _columns(tmp_path, both, missing="keep")["k"] == ["x", "NA", "NA", "x"]
    with pytest.raises(ConfigError, match="line 3, column 'k'"):
        _columns(tmp_path, text)


LABELLED = "a,b,class\n1,2,x\n3,4,z\n5,6,x\n7,8,z\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("3,4,z", "3,4,", "line 3, column 'class'"),
        ("3,4,z", "3,4,nan", "line 3, column 'class'"),
        ("5,6,x", "5,6,X", "two spellings"),
        ("a,b", "a,a", "both named"),
        ("7,8,z", "?,8,z", "line 5, column 'a'"),
        ("1,2", "q,2", "line 2, column 'a'"),
    ],
)
def test_classes_are_as_strict(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_table("csv", _file(tmp_path, LABELLED.replace(old, new)))


def test_classes_spelled_as_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    numbers = LABELLED.replace("x", "1").replace("z", "0")
    assert load_table("csv", _file(tmp_path, numbers)).names == ("0", "1")
    with pytest.raises(ConfigError, match="two spellings"):
        load_table("csv", _file(tmp_path, numbers.replace("5,6,1", "5,6,1.0")))
    with pytest.raises(ConfigError, match="1 class"):
        load_table("csv", _file(tmp_path, numbers.replace(",0\n", ",1\n")))


def test_what_was_found_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="scenarios"):
        _columns(tmp_path, "k,b,y\nx,2,3\nz,,6\nx,8,9\nz,8,9\n", missing="drop")
    [line] = [record.getMessage() for record in caplog.records]
    assert "3 rows (1 with missing cells left out), 2 features (1 numbers, 1 text: k)" in line
    assert "to predict: y; delimiter comma, header yes" in line


def test_two_classes_are_enough_for_metric(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(80, 2))
    lines = [f"{a:.4f},{b:.4f},{'yes' if a > b else 'no'}" for a, b in rows]
    path = _file(tmp_path, "\n".join(["a,b,class", *lines]))
    config = MetricConfig(data="csv", path=path, hidden="4", classes_per_client=2)
    made = MetricScenario(config, num_clients=2, seed=0)
    report = made.problem(0).report(made.problem(0).initial_x, None)
    assert report.metrics["all_rows_f1"] > 0.8


@pytest.mark.parametrize("name", ["path", "target", "header", "missing", "text_columns"])
def test_settings_of_files_need_data_csv(name: str) -> None:
    value = {"header": "yes", "missing": "drop"}.get(name, "x")
    with pytest.raises(ConfigError, match=f"{name}={value} has no effect with data=synthetic"):
        RegressionConfig(**{name: value})  # type: ignore[arg-type]

"""A table in every format: numbers, names that would be read as markup, and what stands below."""

import csv
import io
import json
import math
import re
import sys

import pytest

from fedzo.errors import ConfigError
from fedzo.records.methods_table import FORMATS, MethodsTable
from fedzo.records.standing import standings
from fedzo.records.table_formats import HEAD

THIRD = 1 / 3
HOSTILE = [
    *("a_b", "a|b", "50%", "a & b", "#1", "$x$", "{}", "a{b", "~", "^", "a\\", "<b>x</b>", "**x**"),
    *("a\rb", "x\ny", "\x1b[31m", "\u202eabc", "\u4e2d", "\udcff", '"a,b"', "`x`", "[a](b)"),
]


def made(*, seeds: int = 8, higher: bool = False) -> MethodsTable:
    values = {
        "good_1": {s: THIRD + 0.1 * s for s in range(seeds)},
        "50%": {s: 3.0 + 0.2 * s for s in range(seeds)},
        "tiny": {s: 9.0 + 1e-9 * (s + 1) for s in range(seeds)},
    }
    return MethodsTable([standings("test_loss", values, higher=higher, remarks=["Remarked."])])


def test_text_is_a_line_a_method_with_what_is_assumed_below() -> None:
    lines = str(made()).splitlines()
    assert lines[0] == "test_loss (lower is better)"
    assert re.split(r"\s{2,}", lines[1]) == list(HEAD)
    assert lines[3].split() == ["good_1", "8", "0.68333", "0.087", "(best)", *"------"]
    assert lines[4].split()[:6] == ["50%", "8", "3.7", "0.17", "3.017", "0.087"]
    assert lines[4].split()[6:] == ["0", "8", "0", "0.0078", "0.016", "*"]
    assert len({len(line) for line in lines[2:6]} - {len(lines[2])}) <= 1
    assert "* p < 0.05 after the correction." in lines
    assert "Remarked." in lines
    few = str(made(seeds=3))
    assert "*" not in few
    assert "No difference can reach p < 0.05" in few


def test_csv_has_every_digit() -> None:
    rows = [*csv.DictReader(io.StringIO(made().to_csv()))]
    assert [row["method"] for row in rows] == ["good_1", "50%", "tiny"]
    mean = sum(THIRD + 0.1 * s for s in range(8)) / 8
    assert float(rows[0]["mean"]) == pytest.approx(mean, rel=1e-15)
    assert float(rows[1]["p"]) == 2.0**-7
    assert float(rows[1]["p_holm"]) == 2 * 2.0**-7
    assert (rows[0]["p"], rows[1]["significant"], rows[1]["pairs"]) == ("", "True", "8")


def test_json_is_valid_and_has_the_notes() -> None:
    table = MethodsTable(
        [standings("queries", {"a": {0: 1.0, 1: 2.0}, "b": {0: math.inf, 1: 3.0}})]
    )
    told = json.loads(FORMATS["json"](table), parse_constant=lambda name: pytest.fail(name))
    assert told["rows"][1]["mean"] is told["rows"][1]["difference"] is None
    assert told["rows"][1]["lost"] == 2
    assert told["notes"] == table.notes


def test_latex_is_a_tabular_of_booktabs_with_the_best_in_bold_where_it_is_proven() -> None:
    text = made().to_latex()
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\midrule") == 1
    assert r"good\_1 & 8 & $\mathbf{0.68333}$ & $0.087$ & (best) & --" in text
    assert r"50\% & 8 & $3.7$ & $0.17$" in text
    assert r"$8.7 \times 10^{-10}$" in text
    assert r"$0.016^{*}$" in text
    assert r"Bold: better than every other method, p \textless{} 0.05" in text
    assert "mathbf" not in made(seeds=3).to_latex()


def test_markdown_is_a_table_of_github() -> None:
    lines = made().to_markdown().splitlines()
    assert lines[0] == r"**test\_loss (lower is better)**"
    assert lines[3] == "| --- |" + " ---: |" * (len(HEAD) - 1)
    assert lines[4].startswith(r"| good\_1 | 8 | **0.68333** | 0.087 | (best) |")
    assert "**" not in made(seeds=3).to_markdown().splitlines()[4]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_do_nothing_in_any_format(name: str) -> None:
    table = MethodsTable([standings("value", {name: {0: 1.0}, "b": {0: 2.0}})])
    latex = table.to_latex()
    body = latex[: latex.index(r"\bottomrule")]
    rows = [
        line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    plain = [re.sub(r"\\[&%$#_{}]", "", row) for row in rows]
    assert {row.count("&") for row in plain} == {len(HEAD) - 1}
    assert all(row.count("$") % 2 == 0 and row.count("{") == row.count("}") for row in plain)
    assert not any(set(row.replace("^{*}", "")) & set("%#~") for row in plain)
    markdown = [line for line in table.to_markdown().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in markdown} == {len(HEAD) + 1}
    assert len(markdown) == 4
    assert len([*csv.reader(io.StringIO(table.to_csv()))]) == 3
    html = table._repr_html_()
    assert html.count("<tr>") == 3
    assert str(table).isprintable() or all(line.isprintable() for line in str(table).split("\n"))


def test_several_measures_say_once_what_is_of_all() -> None:
    good, bad = {s: 1.0 + s for s in range(3)}, {s: 3.0 + s for s in range(3)}
    table = MethodsTable(
        [standings("one", {"a": good, "b": bad}), standings("two", {"a": bad, "b": good})]
    )
    assert len([note for note in table.notes if "pairs are" in note.lower()]) == 1
    assert table.notes[0].startswith("one: A difference is a method's value less a's")
    assert str(table).count("lower is better") == 2
    assert table.to_latex().count(r"\midrule") == 2


def test_a_frame_has_the_rows_and_its_lack_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = made().to_frame()
    assert frame["method"].tolist() == ["good_1", "50%", "tiny"]
    assert frame["p"].tolist()[1:] == [2.0**-7] * 2
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedzo\[frame\]'"):
        made().to_frame()

"""A table of methods as text, Markdown, LaTeX, CSV and HTML; what methods are called is escaped."""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from fedzo.records import page
from fedzo.records.paired import Difference
from fedzo.records.standing import Panel, Standing
from fedzo.records.visible import visible

HEAD = (
    *("method", "seeds", "mean", "s.e.", "difference", "s.e."),
    *("won", "lost", "tied", "p", "holm"),
)
_COMPARED = (
    *("pairs", "difference", "difference_error", "won", "lost", "tied"),
    *("p", "p_holm", "least_p_holm"),
)
_NONE = "-"
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")
_NUMBER = re.compile(r"(-?[\d.]+)(?:e([+-]\d+))?( \*)?")

Cell = str | int | float | bool | None


def facts(panel: Panel) -> Iterator[dict[str, Cell]]:
    """Yield the numbers of every method, exactly; None where there is none."""
    for row in panel.rows:
        yield {
            "measure": panel.measure,
            "better": "higher" if panel.higher else "lower",
            "method": row.method,
            "seeds": len(row.seeds),
            "mean": row.mean,
            "standard_error": row.error,
            "reference": panel.reference,
            "test": panel.test,
            **_compared(panel.test, row.difference),
            "significant": row.significant,
        }


def _compared(test: str, found: Difference | None) -> dict[str, Cell]:
    if found is None:
        return dict.fromkeys(_COMPARED)
    told = found.paired
    error = _finite(told.error) if told.pairs > 1 else None
    counts = (told.pairs, _finite(told.difference), error, told.wins, told.losses, told.ties)
    return dict(zip(_COMPARED, (*counts, told.p(test), found.holm, found.least), strict=True))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def cells(panel: Panel) -> list[list[str]]:
    """Return what is shown of every method, rounded, under HEAD."""
    return [_shown(panel, row, told) for row, told in zip(panel.rows, facts(panel), strict=True)]


def _shown(panel: Panel, row: Standing, told: Mapping[str, Cell]) -> list[str]:
    differs = _rounded(told["difference"], 4)
    if row.method == panel.reference:
        differs = "(baseline)" if panel.named else "(best)"
    return [
        row.method,
        str(told["seeds"]),
        _rounded(told["mean"], 5),
        _rounded(told["standard_error"], 2),
        differs,
        _rounded(told["difference_error"], 2),
        *(_rounded(told[name], 6) for name in ("won", "lost", "tied")),
        _rounded(told["p"], 2),
        _rounded(told["p_holm"], 2) + " *" * bool(row.significant),
    ]


def _rounded(value: Cell, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}g}"


def as_text(panels: Sequence[Panel], notes: Sequence[str]) -> str:
    """Return columns of text under a line of their names."""
    parts = []
    for panel in panels:
        rows = [list(HEAD), *([visible(cell) for cell in row] for row in cells(panel))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if number == 0 else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        rule = "-" * max(map(len, lines))
        parts.append("\n".join([visible(panel.title), lines[0], rule, *lines[1:]]))
    star = ["* p < 0.05 after the correction."] * any(r.significant for p in panels for r in p.rows)
    return "\n\n".join([*parts, "\n".join(map(visible, [*star, *notes]))]).rstrip()


def as_markdown(panels: Sequence[Panel], notes: Sequence[str]) -> str:
    """Return tables of GitHub's Markdown; the best is bold where it is proven."""
    parts = []
    for panel in panels:
        lines = [
            f"**{_in_markdown(panel.title)}**\n",
            f"| {' | '.join(HEAD)} |",
            f"| --- |{' ---: |' * (len(HEAD) - 1)}",
        ]
        for row in cells(panel):
            method, seeds, mean, *rest = (_in_markdown(cell) for cell in row)
            bold = "**" if panel.proven and row[0] == panel.best else ""
            lines.append(f"| {' | '.join([method, seeds, f'{bold}{mean}{bold}', *rest])} |")
        parts.append("\n".join(lines))
    told = _in_markdown(" ".join([*notes, *_of_bold(panels)]))
    return "\n\n".join([*parts, *([told] if told else [])])


def as_latex(panels: Sequence[Panel], notes: Sequence[str]) -> str:
    """Return a tabular of booktabs with the notes below; the best is bold where it is proven."""
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(HEAD) - 1)}}}",
        r"\toprule",
        " & ".join(_latex_head()) + r" \\",
    ]
    for panel in panels:
        lines.append(r"\midrule")
        title = rf"\emph{{{_in_latex(panel.title)}}}"
        lines.append(rf"\multicolumn{{{len(HEAD)}}}{{l}}{{{title}}} \\")
        for row in cells(panel):
            method, seeds, mean, *rest = row
            bold = panel.proven and method == panel.best
            number = _latex_number(mean, bold=bold)
            shown = [_in_latex(method), seeds, number, *map(_latex_number, rest)]
            lines.append(" & ".join(shown) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    told = _in_latex(" ".join([*notes, *_of_bold(panels)]))
    if told:
        lines.append(rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {told}}}")
    return "\n".join(lines)


def as_csv(panels: Sequence[Panel]) -> str:
    """Return comma-separated values with every digit; what is not known is empty."""
    rows = [
        {name: visible(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
        for panel in panels
        for row in facts(panel)
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().rstrip("\n")


def as_html(panels: Sequence[Panel], notes: Sequence[str]) -> str:
    """Return tables for a notebook."""
    tables = [f"<p><b>{page.escaped(p.title)}</b></p>{page.table(HEAD, cells(p))}" for p in panels]
    return "".join([*tables, *(page.paragraph(note) for note in notes)])


def _of_bold(panels: Sequence[Panel]) -> list[str]:
    """Say what bold means, where something is."""
    told = {
        "better than every other method" if p.best == p.reference else "better than the baseline"
        for p in panels
        if p.proven
    }
    return [f"Bold: {' or '.join(sorted(told))}, p < 0.05 after the correction."] if told else []


def _latex_head() -> list[str]:
    return ["$p$" if name == "p" else "$p$ (Holm)" if name == "holm" else name for name in HEAD]


def _latex_number(text: str, *, bold: bool = False) -> str:
    """Return a rounded number as a formula, anything else as text."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return "--" if text == _NONE else _in_latex(text)
    mantissa, exponent, star = found.groups()
    power = "" if exponent is None else rf" \times 10^{{{int(exponent)}}}"
    shown = rf"\mathbf{{{mantissa}{power}}}" if bold else f"{mantissa}{power}"
    return f"${shown}{'^{*}' if star else ''}$"


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in visible(text))


def _in_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", visible(text))

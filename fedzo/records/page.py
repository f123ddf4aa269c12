"""A page of HTML that needs nothing else: no network, no files beside it.

Charts are Vega-Lite's, whose JavaScript vl-convert bundles into the page; a content security policy
in it forbids every request. Whatever users, clients and files have named is escaped.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fedzo.errors import ConfigError
from fedzo.records.strict_json import strict_json
from fedzo.records.visible import visible

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline';"
    " img-src data:"
)
_GLOBAL = "window.vegaEmbed = vegaEmbed;"
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1>
{sections}
<script type="application/json" id="fedzo-data">{data}</script>
<script>{library}</script>
<script>{script}</script>
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and HTML under it."""

    title: str
    body: str


def escaped(value: object) -> str:
    """Return a text as HTML shows it, whatever is in it."""
    return html.escape(visible(str(value)))


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; every cell is escaped, numbers are set to the right."""
    top = "".join(f"<th>{escaped(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>\n{lines}</tbody></table>"


def select(name: str, label: str, options: dict[str, str]) -> str:
    """Return a choice among values, each with what is shown for it."""
    shown = "".join(
        f'<option value="{escaped(value)}">{escaped(text)}</option>'
        for value, text in options.items()
    )
    return f'<label>{escaped(label)} <select id="fedzo-{name}">{shown}</select></label>'


def paragraph(text: object) -> str:
    """Return a paragraph of text."""
    return f"<p>{escaped(text)}</p>"


def folded(summary: str, body: str) -> str:
    """Return what is seen when somebody opens it."""
    return f"<details><summary>{escaped(summary)}</summary>{body}</details>"


def picture(path: Path, caption: str) -> str:
    """Return a PNG file as a part of the page."""
    content = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escaped(caption)}" src="data:image/png;base64,{content}">'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def page(title: str, sections: Sequence[Section], data: dict[str, Any]) -> str:
    """Return the page; `data` is what its charts draw.

    Raises ConfigError where vl-convert is not installed.
    """
    room = files("fedzo.records")
    parts = "\n".join(
        f"<section><h2>{escaped(one.title)}</h2>\n{one.body}</section>" for one in sections
    )
    return _PAGE.format(
        policy=_POLICY,
        title=escaped(title),
        style=room.joinpath("page.css").read_text(),
        sections=parts,
        data=_in_script(strict_json(data)),
        library=_library(),
        script=room.joinpath("page.js").read_text(),
    )


@lru_cache(maxsize=1)
def _library() -> str:
    try:
        import vl_convert
    except ImportError as error:
        raise ConfigError(
            "a report needs vl-convert-python, which has the charts' JavaScript, and it is not"
            " installed: pip install 'fedzo[report]'"
        ) from error
    return str(vl_convert.javascript_bundle(_GLOBAL)).replace("</script", "<\\/script")


def _in_script(text: str) -> str:
    """Return JSON that cannot end the element that it stands in."""
    return text.replace("<", "\\u003c")


def _cell(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
        return f'<td class="number" title="{value!r}">{shown}</td>'
    return f"<td>{escaped('-' if value is None else value)}</td>"

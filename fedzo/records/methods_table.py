"""The table of methods that `fedzo.table` returns: it shows itself everywhere, and exports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedzo.errors import ConfigError
from fedzo.records.standing import Panel
from fedzo.records.strict_json import strict_json
from fedzo.records.table_formats import as_csv, as_html, as_latex, as_markdown, as_text, facts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class MethodsTable:
    """Methods on one measure or several: mean, standard error, and paired differences to one.

    `print(table)` shows it, a notebook too. to_latex, to_markdown and to_csv return texts, to_frame
    a pandas table, to_json what `fedzo table --format json` prints.
    """

    panels: Sequence[Panel]

    @property
    def notes(self) -> list[str]:
        """What is assumed; where panels differ, of which measure it is said."""
        told = [panel.notes for panel in self.panels]
        common = [note for note in told[0] if all(note in notes for notes in told)]
        own = [
            f"{panel.measure}: {note}"
            for panel, notes in zip(self.panels, told, strict=True)
            for note in notes
            if note not in common
        ]
        return own + common if len(self.panels) > 1 else told[0]

    def __str__(self) -> str:
        return as_text(self.panels, self.notes)

    def _repr_html_(self) -> str:
        return as_html(self.panels, self.notes)

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown."""
        return as_markdown(self.panels, self.notes)

    def to_latex(self) -> str:
        """Return a tabular for LaTeX with the package booktabs, its notes below."""
        return as_latex(self.panels, self.notes)

    def to_csv(self) -> str:
        """Return comma-separated values with every digit, without the notes."""
        return as_csv(self.panels)

    def to_json(self) -> dict[str, Any]:
        """Return rows, every digit, and notes."""
        return {"rows": self._rows(), "notes": self.notes}

    def to_frame(self) -> "pd.DataFrame":
        """Return a pandas table with a row a method; raises ConfigError without pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ConfigError(
                "to_frame makes a table of pandas, which is not installed: pip install"
                " 'fedzo[frame]'; to_csv and to_json have the same numbers"
            ) from error
        counts = dict.fromkeys(("pairs", "won", "lost", "tied"), "Int64")
        return pd.DataFrame(self._rows()).astype({**counts, "significant": "boolean"})

    def _rows(self) -> list[dict[str, Any]]:
        return [row for panel in self.panels for row in facts(panel)]


FORMATS: Mapping[str, Callable[[MethodsTable], str]] = {
    "text": str,
    "markdown": MethodsTable.to_markdown,
    "latex": MethodsTable.to_latex,
    "csv": MethodsTable.to_csv,
    "json": lambda table: strict_json(table.to_json(), indent=1),
}
SUFFIXES = {".txt": "text", ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}

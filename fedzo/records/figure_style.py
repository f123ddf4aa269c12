"""Styles of matplotlib for one figure, by name or as a file; nothing global stays changed."""

import difflib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

from fedzo.errors import ConfigError

DEFAULT = "default"
EMBEDDED = {"pdf.fonttype": 42, "ps.fonttype": 42}
"""Fonts of figures as TrueType, for publishers refuse matplotlib's usual Type 3."""
_SUFFIX = ".mplstyle"


@contextmanager
def styled(style: str | Path | None) -> Iterator[Mapping[str, Any]]:
    """Draw and save what is inside in a style; gives the settings that it says.

    Raises ConfigError for an unknown style, and for a file that is none or says what it cannot.
    """
    said = {} if style is None else read_style(style)
    with matplotlib.rc_context():
        settings: Any = matplotlib.rcParams
        if style is not None and str(style) == DEFAULT:
            from matplotlib import style as styles

            styles.use(DEFAULT)
        settings.update(EMBEDDED)
        settings.update(said)
        try:
            yield said
        except RuntimeError as error:  # such as LaTeX that is not installed
            if style is None:
                raise
            told = str(error).partition("\n")[0]
            raise ConfigError(f"style={style} cannot be drawn here: {told}") from error


def read_style(style: str | Path) -> Mapping[str, Any]:
    """Return the settings that a style says, by name or file; none for `default`."""
    name = str(style)
    if name.endswith(_SUFFIX) or Path(name).is_file():
        return _of_file(Path(name))
    from matplotlib import style as styles

    if name == DEFAULT:
        return {}
    if name in styles.library:
        return _settings(styles.library[name])
    names = [DEFAULT, *(each for each in styles.available if not each.startswith("_"))]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    told = "" if near else f" names are {', '.join(names)};"
    raise ConfigError(
        f"style={name} is no style of matplotlib; {hint}{told.strip()} a file of settings is"
        f" FILE{_SUFFIX}".replace("  ", " ")
    )


def _of_file(path: Path) -> Mapping[str, Any]:
    """Return what a file of a style says, every line of it."""
    try:
        lines = path.read_text().splitlines()
        for line in lines:
            _require_setting(path, line)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return _settings(
                matplotlib.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
            )
    except OSError as error:
        raise ConfigError(f"style={path} cannot be read: {error.strerror}") from error
    except ConfigError:
        raise
    except (ValueError, TypeError, UserWarning) as error:
        raise ConfigError(f"style={path} is no style of matplotlib: {error}") from error


def _settings(said: Any) -> dict[str, Any]:
    return dict(said)


def _require_setting(path: Path, line: str) -> None:
    """Raise ConfigError for a line that matplotlib would leave out."""
    said = line.strip()
    if not said or said.startswith("#"):
        return
    key, colon, _ = (part.strip() for part in said.partition(":"))
    known = [name for name in matplotlib.rcParamsDefault if name not in _other_settings()]
    if colon and key in known:
        return
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "write KEY: VALUE, such as lines.linewidth: 2"
    raise ConfigError(f"style={path} says {said[:60]!r}, which is no setting of a style; {hint}")


def _other_settings() -> set[str]:
    """Return settings of matplotlib that are not of figures."""
    return {name for name in matplotlib.rcParamsDefault if name.startswith(_NOT_OF_FIGURES)}


_NOT_OF_FIGURES = (
    *("backend", "interactive", "toolbar", "webagg.", "tk.", "timezone", "docstring.", "keymap."),
    *("savefig.directory", "figure.raise_window", "figure.max_open_warning", "date.epoch"),
)

"""What the commands share: options, and the way from an error to an exit status."""

import atexit
import errno
import gc
import logging
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

import click
import typer
from rich.console import Console
from rich.logging import RichHandler

from fedzo.config import Scalar
from fedzo.errors import ConfigError, FedzoError, FedzoWarning
from fedzo.records.run_log import LEVELS, LOGGER, VisibleFormatter, logged_to
from fedzo.records.strict_json import strict_json
from fedzo.records.terminal import say
from fedzo.setting_texts import parse_settings
from fedzo.user_code import is_reference

DEFAULT_STRATEGY = "fedzo"
stderr = Console(stderr=True, emoji=False)
ResultT = TypeVar("ResultT")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What the system says where a file, or what a command prints, finds no room."""
_DISK = (*FULL, errno.EROFS, errno.EMFILE, errno.ENFILE)
_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "Storage size calc")


def _named(table: str) -> Callable[[str], list[str]]:
    """Return what completes a name of a table on the command line."""

    def complete(incomplete: str) -> list[str]:
        from scenarios.runs import names

        return [name for name in getattr(names, table) if name.startswith(incomplete)]

    return complete


ScenarioArgument = Annotated[
    str | None,
    typer.Argument(
        autocompletion=_named("SCENARIOS"),
        help="what is optimized; `fedzo list` names them all; or your own, file.py:function",
    ),
]
StrategyOption = Annotated[
    str | None,
    typer.Option(
        autocompletion=_named("STRATEGIES"),
        help=f"how (default: {DEFAULT_STRATEGY}); `fedzo list` names them; or your own,"
        " file.py:Name",
    ),
]
RoundsOption = Annotated[int | None, typer.Option(help="rounds (default: the scenario's)")]
BudgetOption = Annotated[
    int | None,
    typer.Option(help="most queries of all clients together, for each problem; never exceeded"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="one setting by dotted name, such as scenario.dim=30; may be repeated;"
        " `fedzo list SCENARIO --strategy S` shows all of them with their defaults",
    ),
]
OutOption = Annotated[
    Path | None, typer.Option(help="directory for history, checkpoints and figure")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="go on with what --out holds")]
DryOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="check everything, say what would be run and what it takes, and end"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
SeedOption = Annotated[int, typer.Option(help="determines everything random")]
ThreadsOption = Annotated[
    int, typer.Option(min=1, help="torch threads; more than one is often slower")
]


@dataclass(frozen=True, slots=True)
class SizeOptions:
    """How large a run is."""

    rounds: RoundsOption = None
    clients: Annotated[int | None, typer.Option(help="clients (default: the scenario's)")] = None


@dataclass(frozen=True, slots=True)
class SettingOptions:
    """How a run is made, and what its settings are."""

    engine: Annotated[
        str | None,
        typer.Option(help="who runs the clients: inprocess (default), ray or flower"),
    ] = None
    query_budget: BudgetOption = None
    settings: SetOption = None
    config: Annotated[Path | None, typer.Option(help="TOML experiment; options override it")] = None


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Where what is found goes, and whether some is there already."""

    out: OutOption = None
    resume: ResumeOption = False
    json_output: JsonOption = False
    log_file: Annotated[
        Path | None,
        typer.Option(help="a file that gets a line for every round and failure, at its end"),
    ] = None
    log_level: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(LEVELS)}: the least that is told, in --log-file or here"),
    ] = None


def merged(
    file: dict[str, Any], named: dict[str, Any], size: SizeOptions, how: SettingOptions
) -> dict[str, Any]:
    """Put options over a config file, and settings over the file's; named: the names of the run."""
    given = {
        **named,
        "num_rounds": size.rounds,
        "num_clients": size.clients,
        "engine": how.engine,
        "query_budget": how.query_budget,
    }
    base = dict(file)
    base.update({name: value for name, value in given.items() if value is not None})
    from scenarios.runs.names import SCENARIOS  # it needs what the help does not

    parsed: dict[str, Scalar] = parse_settings(how.settings or [])
    if is_reference(base.get("scenario", "")):
        parsed = {"scenario.objective": base["scenario"], **parsed}
        base["scenario"] = "custom"
    base["settings"] = {**base["settings"], **parsed}
    base["excused"] = base.get("excused", frozenset()) - parsed.keys()
    if "scenario" not in base and "scenario" in given:
        raise ConfigError(f"no scenario is given; name one of {', '.join(SCENARIOS)}")
    if "strategy" in given:
        base.setdefault("strategy", DEFAULT_STRATEGY)
    return base


def by_section(texts: list[str], sections: tuple[str, ...]) -> dict[str, dict[str, Scalar]]:
    """Return settings KEY=VALUE by their section, without its name.

    Raises ConfigError for settings of other sections.
    """
    parts: dict[str, dict[str, Scalar]] = {section: {} for section in sections}
    for key, value in parse_settings(texts).items():
        section, _, name = key.partition(".")
        if section not in parts or not name:
            raise ConfigError(
                f"--set {key}={value}: settings begin with {' or '.join(f'{s}.' for s in sections)}"
            )
        parts[section][name] = value
    return parts


def prepare(threads: int) -> None:
    gc.disable()  # what is imported stays: there is no garbage to look for
    import torch  # when a command runs: the help does without

    gc.freeze()
    gc.enable()
    torch.set_num_threads(max(1, threads))
    handler = RichHandler(console=stderr, show_path=False, show_time=False, show_level=False)
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logger = logging.getLogger("scenarios")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print fedzo's own warnings as a sentence, others as Python does."""
    if issubclass(category, FedzoWarning):
        LOGGER.warning("%s", message)
        _say(f"warning: {message}", "yellow")
        return
    stream = sys.stderr if file is None else file
    stream.write(warnings.formatwarning(message, category, filename, lineno, line))


def _say(sentence: str, style: str) -> None:
    say(stderr, sentence, style=style)


def guard(
    work: Callable[[], ResultT],
    output: OutputOptions | None = None,
    *,
    json_output: bool = False,
    again: str = "",
) -> ResultT:
    """Turn expected errors into a sentence and an exit status: 2 bad input, 1 failed run.

    again: how what was cut off goes on, for a command without --resume.
    """
    try:
        with _apart(json_output or (output is not None and output.json_output)):
            return work() if output is None else _in_log(work, output)
    except FedzoError as error:
        _say(f"error: {error}", "red")
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        _say(
            f"error: {error.filename} cannot be written: {error.strerror}; name another path", "red"
        )
        raise typer.Exit(2) from error
    except OSError as error:
        if error.errno not in _DISK and not error.filename:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _say(f"error: {place}{error.strerror}{_going_on(again)}", "red")
        raise typer.Exit(1) from error
    except MemoryError as error:
        _say(_too_large(str(error)), "red")
        raise typer.Exit(1) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _NO_MEMORY):
            raise
        _say(_too_large(str(error)), "red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # once more: it is ending
        stderr.print(f"interrupted{_going_on(again)}", highlight=False)
        raise typer.Exit(130) from None


def _going_on(again: str) -> str:
    """Return how the command at hand goes on, where it can."""
    context = click.get_current_context(silent=True)
    options = [word for param in context.command.params for word in param.opts] if context else ()
    if not again and "--resume" in options:
        again = "a run with --out goes on with --resume"
    return f"; {again}" if again else ""


def _apart(json_output: bool) -> AbstractContextManager[Any]:
    """Return what keeps the code of users, which may print, out of the one JSON object."""
    return redirect_stdout(sys.stderr) if json_output else nullcontext()


def _in_log(work: Callable[[], ResultT], output: OutputOptions) -> ResultT:
    """Return what work returns, with a log of it where one is wanted."""
    if output.log_file is None and output.log_level is None:
        return work()
    with logged_to(output.log_file, output.log_level or "info"):
        try:
            return work()
        except BaseException as error:
            LOGGER.error("%s: %s", type(error).__name__, error)
            raise


def _too_large(reason: str) -> str:
    """Return the sentence for what asks for more memory than there is."""
    told = f" ({reason.splitlines()[0]})" if reason else ""
    return (
        f"error: the settings ask for more memory than there is{told}; lower sizes such as clients,"
        " scenario.dim, hidden layers, client.num_directions or batches"
    )


def finish(summary: dict[str, Any], json_output: bool) -> None:
    if json_output:
        sys.stdout.write(strict_json(summary) + "\n")

"""What lies in files and modules of the user's: `file.py:name` or `package.module:name`.

A file loads like a script: it may import its neighbors, at once or later, hold dataclasses, and
quit nothing but itself; what it keeps under `if __name__ == "__main__"` does not run. Afterwards
its folder comes last on the search path: none of its files stands in for a module of others.
`load_object` runs a file anew; `load_kept` returns the same classes as long as the file and its
neighbors say the same. Neither takes the place of a module that a script has imported itself.
`reference_of` is the way back, from a class or function to such a text.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from functools import lru_cache
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from fedzo.errors import ConfigError
from fedzo.failure import failure_of
from fedzo.origin import is_of_a_user

_OURS = ("fedzo", "clients", "strategies", "scenarios")
REFERENCE = re.compile(r"(?:[^\s|():'\"=,]+\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*")
"""A reference inside a longer text, where paths have no spaces."""
_RUN_BY_US, _TEXT = "__fedzo_run__", "__fedzo_text__"
"""The mark of a module: "kept" where its classes are to stay, "anew" where they are not, "near" of
a neighbor that one of these imports, whose text is marked too."""


def is_reference(text: str) -> bool:
    """Return whether a text can only be "file.py:name" or "module:name"."""
    where, colon, name = text.rpartition(":")
    return bool(colon and name.isidentifier() and (where.endswith(".py") or _is_dotted(where)))


def absolute_reference(reference: str) -> str:
    """Return "file.py:name" with the whole path, for processes that run elsewhere."""
    where, _, name = reference.rpartition(":")
    return f"{Path(where).expanduser().absolute()}:{name}" if where.endswith(".py") else reference


def load_object(reference: str, *, what: str) -> Any:
    """Load "file.py:name" or "module:name"; raises ConfigError, naming `what`, if there is none."""
    where, colon, name = reference.rpartition(":")
    if not colon or not where or not name:
        raise ConfigError(f"{what}={reference!r} must be file.py:name or package.module:name")
    file = where.endswith(".py")
    return _of(
        _load_file(Path(where), name, what) if file else _load_module(where, what), reference
    )


def load_kept(reference: str, *, what: str) -> Any:
    """Load as `load_object`, but what was loaded before, where no file has changed since."""
    where, _, name = reference.rpartition(":")
    if not where.endswith(".py") or not name:
        return load_object(reference, what=what)
    if _script(Path(where).expanduser().absolute()) is not None:
        return load_object(reference, what=what)
    _require_file(Path(where).expanduser(), what)
    return _of(_kept(where, stamp(where)), reference)


def stamp(file: str) -> str:
    """Return a digest of a file and the neighbors that it imports; "" where there is none."""
    digest = hashlib.sha256()
    for content in sources(file).values():
        digest.update(content.encode())
    return digest.hexdigest()


def sources(file: str) -> dict[str, str]:
    """Return the texts of a file and of the neighbors that it imports, by their paths.

    A file that cannot be read has none: whoever loads it says so.
    """
    path = Path(file).expanduser().absolute()
    near = sorted(_imported(path, path.parent)) if path.is_file() else []
    places = {file: path}
    for name in near:
        found = path.parent / f"{name}.py"
        places[str(Path(file).with_name(found.name))] = found
    return {
        name: place.read_text(errors="replace") for name, place in places.items() if place.is_file()
    }


def reference_of(thing: Any) -> str:
    """Return the text that names a class or function, so that a run can be written down.

    Raises ConfigError for what no text can name: lambdas, and what was made inside a function.
    """
    name, home = getattr(thing, "__qualname__", ""), getattr(thing, "__module__", None) or ""
    module = sys.modules.get(home)
    if not name.isidentifier() or getattr(module, name, None) is not thing:
        raise ConfigError(
            f"{thing!r:.80} has no name by which it can be found again; define it with class or def"
            " at the top level of a file"
        )
    path = _origin(module) if module is not None else None
    if path is None or "." in home or not (home == "__main__" or is_of_a_user(path)):
        return f"{home}:{name}"
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{name}"


@lru_cache(maxsize=256)
def _kept(where: str, _stamp: str) -> ModuleType:
    return _load_file(Path(where), "", "the file", keep=True)


def _script(path: Path) -> ModuleType | None:
    """Return the script that runs, where it is this file."""
    running = sys.modules.get("__main__")
    return running if running is not None and _origin(running) == path else None


def _of(module: ModuleType, reference: str) -> Any:
    where, _, name = reference.rpartition(":")
    if not hasattr(module, name):
        raise ConfigError(f"{where} has no {name!r}; it has {', '.join(_own(module)) or 'nothing'}")
    return getattr(module, name)


def _is_dotted(where: str) -> bool:
    return all(part.isidentifier() for part in where.split("."))


def _own(module: ModuleType) -> list[str]:
    """Return the names of what a module defines itself: functions, classes and callable objects."""
    return [
        name
        for name, each in inspect.getmembers(module, callable)
        if getattr(each, "__module__", "") == module.__name__ or not hasattr(each, "__name__")
    ]


def _require_file(path: Path, what: str, given: Path | None = None) -> None:
    if not path.is_file():
        shown = given or path
        where = (
            "" if shown.is_absolute() else f" in {Path.cwd()}; go to its folder, or name its path"
        )
        raise ConfigError(f"{what} names {str(shown)!r}, which is not a file{where}")


class _AsItIs(SourceFileLoader):
    """Compiles a file anew: what is kept of it may be of a text as old and as long."""

    def get_code(self, fullname: str) -> CodeType:
        made: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return made


def _load_file(given: Path, wanted: str, what: str, *, keep: bool = False) -> ModuleType:
    path = given.expanduser().absolute()
    _require_file(path, what, given)
    running = _script(path)
    if running is not None and hasattr(running, wanted):
        return running  # a script that names what it holds must not run twice
    _make_room(path)
    name, before_it = _module_name(path, keep=keep), {*sys.modules}
    spec = importlib.util.spec_from_file_location(name, path, loader=_AsItIs(name, str(path)))
    if spec is None or spec.loader is None:
        raise ConfigError(f"{str(given)!r} cannot be loaded as Python")
    module, before = importlib.util.module_from_spec(spec), sys.modules.get(name)
    setattr(module, _RUN_BY_US, "kept" if keep else "anew")
    sys.modules[name] = module  # where dataclasses look for it
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # the user's file may raise anything
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        raise ConfigError(f"{str(given)!r} does not load: {failure_of(error)}") from error
    finally:
        sys.path.remove(str(path.parent))
        for near in _imported(path, path.parent) - before_it:
            _mark(sys.modules.get(near))
    return module


def _mark(neighbor: ModuleType | None) -> None:
    """Take down that we have imported a module, and its text."""
    if neighbor is not None and (origin := _origin(neighbor)) is not None:
        setattr(neighbor, _RUN_BY_US, "near")
        setattr(neighbor, _TEXT, origin.read_bytes() if origin.is_file() else b"")


def _load_module(name: str, what: str) -> ModuleType:
    _search(Path.cwd())
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{what}: module {name!r} cannot be imported: {error}") from error
    except BaseException as error:  # the user's module may raise anything
        raise ConfigError(f"{what}: module {name!r} does not load: {failure_of(error)}") from error


def _module_name(path: Path, *, keep: bool) -> str:
    """Return the file's own name, or one made of its path where that is a module's already.

    A module that we have run this file as before gives way; one that was to stay, to a later text.
    """
    held = sys.modules.get(path.stem)
    yielding = ("anew", "near", "kept") if keep else ("anew",)
    if held is not None and _origin(held) == path and getattr(held, _RUN_BY_US, "") in yielding:
        return path.stem
    if held is None and installed(path.stem, path.parent) is None and path.stem.isidentifier():
        return path.stem
    return f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _make_room(path: Path) -> None:
    """Let the file find its neighbors, and not those of a file that was loaded before.

    Raises ConfigError where it imports a neighbor whose name means something else here.
    """
    folder = path.parent
    _search(folder)
    for name in sorted(_imported(path, folder)):
        if name in _OURS:  # they may not have been imported yet, and must never be another's
            importlib.import_module(name)
        held = sys.modules.get(name)
        origin = _origin(held) if held is not None else installed(name, folder)
        if origin is not None and folder in origin.parents:
            if getattr(held, _TEXT, None) not in (None, origin.read_bytes()):
                del sys.modules[name]
            continue
        if origin is not None and is_of_a_user(origin):
            for key in [key for key in sys.modules if key.partition(".")[0] == name]:
                del sys.modules[key]
        elif held is not None or origin is not None:
            raise ConfigError(
                f"{str(path)!r} imports {name}, which lies beside it, but another module of that"
                f" name is in use here ({origin or 'part of Python'}); rename the file beside it"
            )


def _search(folder: Path) -> None:
    """Put a folder on the search path: behind what is installed, before other folders of users."""
    if str(folder) not in sys.path:
        places = [i for i, entry in enumerate(sys.path) if not is_of_a_user(Path(entry))]
        sys.path.insert(1 + max(places, default=-1), str(folder))
    importlib.invalidate_caches()


def _imported(path: Path, folder: Path) -> set[str]:
    """Return the neighbors that a file imports anywhere, and those that they import."""
    found: set[str] = set()
    waiting = [path]
    while waiting:
        for name in _imports_of(waiting.pop()) - found:
            near = [folder / f"{name}.py", folder / name / "__init__.py"]
            found |= {name} if any(file.is_file() for file in near) else set()
            waiting += [file for file in near if file.is_file()]
    return found


def _imports_of(path: Path) -> set[str]:
    """Return the top-level names that a file imports; none where it is no Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    nodes = list(ast.walk(tree))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    of = [n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level and n.module]
    return {name.partition(".")[0] for name in plain + of}


def _origin(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).absolute() if file else None


def installed(name: str, folder: Path) -> Path | None:
    """Return where a module of this name lies outside of users' folders."""
    if name in sys.stdlib_module_names:
        return Path(sys.base_prefix) / name
    paths = [Path(entry or ".").absolute() for entry in sys.path]  # "" where no script runs
    entries = [str(path) for path in paths if path != folder and not is_of_a_user(path)]
    spec = PathFinder.find_spec(name, entries)
    return Path(spec.origin) if spec is not None and spec.origin else None

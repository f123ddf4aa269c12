"""The packages beside fedzo: found whatever a user's files are called, also as fedzo.strategies.

`import fedzo.strategies` is `import strategies`, and so on for clients and scenarios and all in
them. A user's own strategies.py on the search path would stand in for the package: that ends in a
sentence. A mere folder of that name, which Python takes for a package too, does not.
"""

import importlib
import random  # noqa: TID251 (to leave it as it was)
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGES = ("clients", "strategies", "scenarios")
_HOME = Path(__file__).parents[1]


class Packages(MetaPathFinder, Loader):
    """Finds the packages where fedzo lies, and returns them under both names."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in PACKAGES:
            return _spec_of(name)
        over, _, inner = name.partition(".")
        if over != "fedzo" or inner.partition(".")[0] not in PACKAGES:
            return None
        return ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        inner = spec.name.removeprefix("fedzo.")
        module = importlib.import_module(inner)
        self._specs[inner] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is: it has been executed under its own name."""
        module.__spec__ = self._specs[module.__name__]


def imported(name: str) -> ModuleType:
    """Return a module; who imports it first finds the generator of `random` as it was.

    rich, which flwr and httpx bring, draws from it as it is imported.
    """
    if name in sys.modules:
        return importlib.import_module(name)
    before = random.getstate()
    try:
        return importlib.import_module(name)
    finally:
        random.setstate(before)


def find_packages() -> None:
    """Let imports find fedzo's packages, in this process from now on.

    Raises ImportError where another module of that name has been imported already.
    """
    for name in PACKAGES:
        held = getattr(sys.modules.get(name), "__file__", None)
        if held is not None:
            _require_ours(name, held)
    if not any(isinstance(finder, Packages) for finder in sys.meta_path):
        sys.meta_path.insert(0, Packages())


def _spec_of(name: str) -> ModuleSpec | None:
    """Return where a package lies; raises ImportError where a file of the user's would be found."""
    found = PathFinder.find_spec(name)
    if found is not None and found.origin is not None:
        _require_ours(name, found.origin)
    folder = _HOME / name
    return spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )


def _require_ours(name: str, file: str) -> None:
    if Path(file).resolve() != (_HOME / name / "__init__.py").resolve():
        raise ImportError(
            f"{file} is called like fedzo's package {name}, which Python would look for there;"
            " rename your file"
        )

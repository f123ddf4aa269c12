"""Problems and wiring: what is optimized, by whom, and how it is run."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fedzo.packages import imported  # which also leads from the old names of modules

if TYPE_CHECKING:
    from scenarios.runs.experiment import Experiment, make_experiment
    from scenarios.runs.simulate import RunResult, federate, simulate

__all__ = ["Experiment", "RunResult", "federate", "make_experiment", "simulate"]


class _Package(ModuleType):
    """Imports what it offers when that is asked for: all of it needs torch, the help does not."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = "experiment" if name in ("Experiment", "make_experiment") else "simulate"
        return getattr(imported(f"{__name__}.runs.{home}"), name)

    @property
    def simulate(self) -> Any:
        """The function, also where the module was imported by its old name, which puts it here."""
        return imported(f"{__name__}.runs.simulate").simulate

    @simulate.setter
    def simulate(self, module: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Package

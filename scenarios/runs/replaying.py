"""The module of a federation in place, made anew from the log that its checkpoint holds.

The scenario is built again, so a client's module is where all began, and the log is replayed into
it: no client is asked, and no loss computed. The same bits on any machine and engine.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from fedzo.errors import ConfigError
from fedzo.objectives.modules import ModuleObjective
from fedzo.records.tensor_file import octets
from scenarios.runs.engines import build_scenario
from scenarios.runs.stored import load_run


def replay_federation(directory: Path) -> dict[str, Tensor]:
    """Return the trained parameters of a run in place, by name.

    Raises ConfigError for a run whose x is a vector, and for clients without a module.
    """
    run = load_run(directory)
    if not run.result.in_place:
        raise ConfigError(
            f"{directory} holds a run of {run.experiment.strategy}, whose x is a vector and no log:"
            " fedzo.load_run(...).x is it"
        )
    module = _module(run.experiment.scenario, build_scenario(run.experiment).cohort([0], 0))
    run.result.replay_(module)
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of all numbers and their names."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(name.encode())
        whole.update(octets(tensor.cpu()).numpy().tobytes())
    return whole.hexdigest()


def _module(scenario: str, cohort: object) -> nn.Module:
    for objective in getattr(cohort, "objectives", ()):
        if isinstance(objective, ModuleObjective):
            return objective.module
    raise ConfigError(f"the clients of scenario {scenario} have no module that could be moved")

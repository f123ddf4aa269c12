"""fedzo: optimize together, or alone, without seeing gradients.

    result = fedzo.minimize(f, x0=[0.0] * 10, budget=500)                          one function
    result = fedzo.federate(black_box, num_clients=4, num_rounds=30)               many clients
    report = fedzo.attack(model, images, labels, radius=0.1)                       a model's answers
    optimizer = fedzo.ZerothOrder(model, lr=1e-4); optimizer.step(closure)         a torch module
    run = fedzo.load_run("runs/first"); run.to_frame()                             what was written
    fedzo.plot("runs/both"), fedzo.table("runs/both")                              for a paper

All of FACE is imported when it is used. fedzo.strategies, fedzo.clients and fedzo.scenarios are the
packages beside this one (fedzo.packages).
"""

from typing import Any

from fedzo.moved import lead_from_old_names
from fedzo.packages import PACKAGES, find_packages, imported

__version__ = "0.1.0"

FACE = {
    "minimize": "fedzo.blackbox.minimize",
    "Optimizer": "fedzo.blackbox.optimizer",
    **dict.fromkeys(("Float", "Log", "Int", "Choice"), "fedzo.blackbox.variables"),
    "federate": "scenarios.runs.simulate",
    "simulate": "scenarios.runs.simulate",
    "make_experiment": "scenarios.runs.experiment",
    "RunResult": "scenarios.runs.run_result",
    **dict.fromkeys(("load_run", "load_runs"), "scenarios.runs.stored"),
    "retime": "scenarios.runs.retime",
    "plot": "scenarios.runs.figure",
    "table": "scenarios.runs.table",
    "attack": "scenarios.attacks.one_call",
    "check": "scenarios.runs.check",
    "ZerothOrder": "fedzo.finetuning.zeroth_order",
    "ActivityZO": "fedzo.finetuning.activity.optimizer",
    "Method": "fedzo.finetuning.methods.method",
    "keep_snapshots": "fedzo.estimation.snapshots",
    **dict.fromkeys(
        ("Objective", "CallableObjective", "TorchObjective", "ModuleObjective", "Maximize"),
        "fedzo.objectives.objective",
    ),
    **dict.fromkeys(("ConfigError", "FedzoWarning"), "fedzo.errors"),
}
"""What `import fedzo` offers, and the module of each; fedzo/__init__.pyi tells it to editors."""

find_packages()
lead_from_old_names()


def __getattr__(name: str) -> Any:
    """Import what is offered, or a package beside fedzo, when it is asked for."""
    if name in FACE:
        return getattr(imported(FACE[name]), name)
    if name in PACKAGES:
        return imported(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *FACE, *PACKAGES])

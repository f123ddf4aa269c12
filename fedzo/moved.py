"""Old names of modules, for one release: they lead to the new ones, with a warning.

Modules have moved into rooms; `from fedzo.objective import Objective` still works, and says where
Objective lives now.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = (
    ("clients.anchored", "clients", "anchor gradients"),
    ("clients.averaging", "clients", "zeroth_order first_order momentum"),
    ("clients.core", "clients", "local correction values"),
    ("clients.peers", "clients", "mixing"),
    ("clients.private", "clients", "gradient_difference clipped_walk"),
    ("clients.shared", "clients", "probes"),
    ("clients.surrogate", "clients", "local_slopes"),
    ("fedzo.adversary", "fedzo", "byzantine=lies"),
    (
        "fedzo.attacks.attackers",
        "fedzo.attacks",
        "square simba thompson edge hopskipjump boundary estimated surrogate",
    ),
    (
        "fedzo.attacks.victims",
        "fedzo.attacks",
        "victim wrappers gate images memory onnx remote server",
    ),
    ("fedzo.estimation", "fedzo", "directions bases estimators=schemes zo_gradient smoothing"),
    (
        "fedzo.objectives",
        "fedzo",
        "objective modules cohort oracle problem remote transport http_post tries pipes "
        "addresses json_answers box",
    ),
    ("fedzo.protocol", "fedzo", "exchange messages"),
    ("fedzo.protocol", "fedzo.runtime", "answers claims"),
    (
        "fedzo.records",
        "fedzo",
        "history changes checkpoint checkpoint_files plots heatmap storage lock sealed_line "
        "tensor_file visible figure_text strict_json",
    ),
    ("fedzo.records", "scenarios", "terminal"),
    (
        "fedzo.runtime.flower",
        "fedzo.runtime",
        "inprocess_grid simulation deployment roster node_task trial_keys processes",
    ),
    ("fedzo.runtime.middleware", "fedzo.runtime", "byzantine faulty recording"),
    ("fedzo.runtime.ray", "fedzo.runtime", "ray_actors=actors ray_pool=pool ray_worker=worker"),
    ("scenarios.attacks", "scenarios", "attackers single_attack attack_report rehearsal"),
    (
        "scenarios.cli",
        "scenarios",
        "cli_attack=attack cli_audit=audit cli_compare=compare cli_defend=defend "
        "cli_deploy=deploy cli_options=options cli_lazy=lazy cli_list=list cli_run=run "
        "cli_plot=plot display settings_help starters",
    ),
    (
        "scenarios.data",
        "scenarios",
        "partition networks tables csv_lines csv_table columns",
    ),
    ("fedzo", "scenarios", "user_code"),
    ("fedzo", "scenarios.data", "user_code"),
    ("scenarios.deployed", "scenarios", "deploy flower_app"),
    (
        "scenarios.problems",
        "scenarios",
        "scenario quadratic multimodal attack attack_objective attack_figure metric "
        "classification mlp_cohort mlp_memo regression custom remote",
    ),
    (
        "scenarios.runs",
        "scenarios",
        "names methods entries experiment experiment_file config_file engines simulate "
        "run_result rundir compare milestones grid sizes ownership steps audit",
    ),
    ("scenarios.data", "scenarios.victims", "photo_networks"),
    ("scenarios.victims", "scenarios", "victim_sources shipped order_judge smoothed defense"),
    ("strategies.anchored", "strategies", "anchoring norm_test fedamd fedpage fedsaga"),
    (
        "strategies.averaging",
        "strategies",
        "fedavg fedavg_config server_step fedprox scaffold fednova mifa",
    ),
    (
        "strategies.core",
        "strategies",
        "rounds asking method base driver accounting judging cohorts outcome robust screening "
        "safeguard standstill table step_config privacy_config spending uncovered",
    ),
    ("strategies.peers", "strategies", "monna graphs"),
    (
        "strategies.private",
        "strategies",
        "privacy record_bounds private_fedavg diff2 diff2_config diff2_noise gradient_filter",
    ),
    ("strategies.search", "strategies", "comparison square thompson"),
    ("strategies.shared", "strategies", "shared_probes seedzo fedzen relizo"),
    (
        "strategies.surrogate",
        "strategies",
        "fzoos fzoos_config fzoos_improved fzoos_on_client fzoos_paper fzoos_state",
    ),
)
"""Rooms, where their modules lay, and their names; old=new where the name has changed too."""


def new_names() -> dict[str, str]:
    """Return the new name of every module that has moved."""
    return {
        f"{home}.{old}": f"{room}.{new or old}"
        for room, home, names in MOVED
        for old, _, new in (name.partition("=") for name in names.split())
    }


class OldNames(MetaPathFinder, Loader):
    """Finds modules under their old names and returns those that they have become."""

    def __init__(self) -> None:
        self._new = new_names()
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in self._new else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = self._new[spec.name]
        warnings.warn(
            f"{spec.name} is now {new}; the old name goes with the next release",
            FutureWarning,
            stacklevel=2,
        )
        module = importlib.import_module(new)
        self._specs[new] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is: it has been executed under its own name."""
        module.__spec__ = self._specs[module.__name__]


def lead_from_old_names() -> None:
    """Let imports of old names find the new ones, in this process from now on."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.append(OldNames())

"""The rules of the house: layers, sizes, and no global randomness, pickle or private names."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tools import house

ROOT = Path(__file__).parent.parent
PACKAGES = ("fedzo", "strategies", "clients", "scenarios")
SOURCES = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]
source_tree = pytest.mark.source_tree


@source_tree
def test_layers_are_kept() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@source_tree
def test_there_are_sources() -> None:
    assert len(SOURCES) > 40


BANNED = ("pickle", "torch.load(", "manual_seed", "np.random.seed")


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in SOURCES}


@source_tree
def test_files_are_short_documented_and_free_of_pickle() -> None:
    for path, tree in trees().items():
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        assert ast.get_docstring(tree), path
        said = text.replace("no pickle", "").replace("without pickle", "")
        assert not [banned for banned in BANNED if banned in said], path


@source_tree
def test_no_modules_and_no_rooms_import_each_other() -> None:
    told = house.measured(ROOT)
    assert told["import_cycles"] == told["room_cycles"] == told["upward_imports"] == []
    assert told["repeated_share"] <= 0.02


@source_tree
def test_rooms_that_import_each_other_are_found(tmp_path: Path) -> None:
    for name, text in {
        "__init__": "",
        "a/one": "import fedzo.b.two",
        "b/two": "",
        "b/more": "from fedzo.a import one",
    }.items():
        path = tmp_path / "fedzo" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    modules = house.sources(tmp_path)
    graph = house.module_graph(modules)
    assert house.rooms("fedzo", graph, modules)["cycles"] == [["a", "b"]]


@source_tree
def test_the_map_has_every_room_and_no_other() -> None:
    tree = (ROOT / "docs" / "design.md").read_text().split("```\n")[1]
    told = set()
    for package, *lines in (part.splitlines() for part in re.split(r"\n(?=\S)", tree)):
        heads = [line.strip().partition("  ")[0] for line in lines if re.match(r"  \w", line)]
        names = re.findall(r"(\w+)/", " ".join(heads))
        told |= {f"{package.partition('/')[0]}/{name}" for name in names}
    rooms = {p.parent for path in SOURCES for p in [path.relative_to(ROOT)] if len(p.parts) == 3}
    assert told == {str(room) for room in rooms}


@source_tree
def test_private_names_of_flwr_stay_in_one_file() -> None:
    public = ("flwr.app", "flwr.clientapp", "flwr.serverapp")
    for path, tree in trees().items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.startswith("flwr") and path.name != "_compat.py":
                    assert name.startswith(public), (path, name)


GOLDEN = """
import random, sys, tempfile
import numpy as np, torch
torch.set_num_threads(1)
from pathlib import Path
from scenarios import make_experiment, simulate  # some of its libraries use `random` on import
torch.manual_seed(1); np.random.seed(2); random.seed(3)
def states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
before = states()
folder = Path(tempfile.mkdtemp())
small = {"scenario.dataset": "digits", "scenario.max_examples": 200}
attack = {"scenario.dataset": "digits", "scenario.epochs": 10, "scenario.num_images": 1,
          "scenario.cache_dir": str(folder / "cache")}
for number, (scenario, strategy, settings) in enumerate([
    ("quadratic", "fedzo", {"scenario.noise_std": 0.1, "client.directions": "rademacher"}),
    ("quadratic", "fedzo", {"client.estimator": "residual", "engine.strict": True}),
    ("quadratic", "fedavg", {}),
    ("classification", "fedavg", {**small, "strategy.participation": 0.5}),
    ("classification", "fedavg", {**small, "scenario.model": "cnn"}),
    ("attack", "fedzo", attack),
    ("quadratic", "fzoos", {}),
    ("quadratic", "fzoos", {"strategy.variant": "official", "client.num_features": 20}),
    ("metric", "fzoos", {"scenario.max_iterations": 20}),
]):
    experiment = make_experiment(
        scenario, strategy, num_rounds=2, num_clients=4, settings=settings
    )
    simulate(experiment, out=None if number % 5 else folder / str(number))
    assert states() == before, (scenario, strategy)
print("golden")
"""


def test_global_random_states_are_bit_identical_after_runs() -> None:
    """In a process of its own: the checks of types draw from `random`."""
    done = subprocess.run(
        [sys.executable, "-c", GOLDEN], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "golden", done.stderr

"""The rules of the house: layers, sizes, and no global randomness, pickle or private names."""

import ast
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedzo.config import Scalar
from scenarios import make_experiment, simulate
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


def trees() -> dict[Path, ast.Module]:
    return {path: house.parsed(path) for path in SOURCES}


TENSORS_OF_A_PACKAGE = ROOT / "scenarios/data/photo_networks.py"
"""Reads weights that another package ships as a pickle, tensors alone."""


@pytest.mark.more
@source_tree
def test_files_are_short_documented_and_free_of_pickle() -> None:
    for path, tree in trees().items():
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        assert ast.get_docstring(tree), path
        said = text.replace("no pickle", "").replace("without pickle", "")
        if path == TENSORS_OF_A_PACKAGE:
            assert said.count("torch.load(") == said.count("weights_only=True") == 1
            continue
        assert not [banned for banned in BANNED if banned in said], path


@pytest.mark.more
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


SMALL = {"scenario.dataset": "digits", "scenario.max_examples": 200}
ATTACK = {"scenario.dataset": "digits", "scenario.epochs": 1, "scenario.num_images": 1}
RUNS: list[tuple[str, str, dict[str, Scalar]]] = [
    ("quadratic", "fedzo", {"scenario.noise_std": 0.1, "client.directions": "rademacher"}),
    ("quadratic", "fedzo", {"client.estimator": "residual", "engine.strict": True}),
    ("quadratic", "fedavg", {}),
    ("classification", "fedavg", {**SMALL, "strategy.participation": 0.5}),
    ("classification", "fedavg", {**SMALL, "scenario.model": "cnn"}),
    ("attack", "fedzo", {**ATTACK, "scenario.classes_per_client": 10}),
    ("quadratic", "fzoos", {}),
    ("quadratic", "fzoos", {"strategy.variant": "official", "client.num_features": 20}),
    ("metric", "fzoos", {"scenario.max_iterations": 20}),
]


@pytest.mark.more
@pytest.mark.usefixtures("unchecked")
def test_global_random_states_are_bit_identical_after_runs(tmp_path: Path) -> None:
    def states() -> tuple[Any, ...]:
        numbers = np.random.get_state()  # noqa: NPY002
        return torch.get_rng_state().tolist(), numbers[1].tolist(), numbers[2:], random.getstate()

    with torch.random.fork_rng():
        torch.manual_seed(1)
        np.random.seed(2)  # noqa: NPY002
        random.seed(3)
        before = states()
        for number, (scenario, strategy, settings) in enumerate(RUNS):
            if scenario == "attack":
                settings = {**settings, "scenario.cache_dir": str(tmp_path / "cache")}
            made = make_experiment(
                scenario, strategy, num_rounds=2, num_clients=4, settings=settings
            )
            simulate(made, out=None if number % 5 else tmp_path / str(number))
            assert states() == before, (scenario, strategy)


@pytest.mark.more
@source_tree
def test_rooms_are_few_and_low() -> None:
    packages = house.measured(ROOT)["packages"]
    for package, most in {"strategies": (10, 4, 15), "scenarios": (8, 6, 16)}.items():
        found = packages[package]
        assert all(found[n] <= m for n, m in zip(("rooms", "floors", "arrows"), most, strict=True))

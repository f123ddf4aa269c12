"""Measure the house: sizes of files and functions, repeated lines, and how the rooms hang together.

    python tools/house.py [--json]

A room is a folder of a package, or a module that lies directly in it where it has no folders. An
arrow is an import between two rooms. The floors are the layers in which rooms can be stacked so
that arrows only go down (rooms of a cycle share one). An upward import goes from a package to one
above it. The method of a strategy file is the code (no blank lines, docstrings, comments) inside
functions that compute: all but constructors, checks of settings, and one-line properties.
"""

import argparse
import ast
import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx

PACKAGES = {"fedzo": 0, "clients": 1, "strategies": 1, "scenarios": 2}
"""The packages, and on which floor of the house they are."""
METHODS = (
    *("fedavg", "fedprox", "scaffold", "fednova", "mifa", "seedzo", "fedzen", "relizo", "square"),
    *("thompson", "fedamd", "fedpage", "fedsaga", "monna"),
)
WINDOW = 6
LONG = 40


def sources(root: Path) -> dict[str, Path]:
    """Return every module of the packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    return found


@cache
def parsed(path: Path) -> ast.Module:
    """Return the tree of a source."""
    return ast.parse(path.read_text())


def imported(tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """Return the modules of the house that a module imports when it is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names]
        else:
            continue
        for name in names:
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name:
                yield name


def module_graph(modules: dict[str, Path]) -> nx.DiGraph:
    """Return who imports whom."""
    graph = nx.DiGraph()
    graph.add_nodes_from(modules)
    for name, path in modules.items():
        graph.add_edges_from((name, m) for m in imported(parsed(path), modules))
    graph.remove_edges_from(nx.selfloop_edges(graph))
    return graph


def room_of(module: str, modules: dict[str, Path]) -> str:
    """Return the room of a module within its package; the package itself has none."""
    parts = module.split(".")
    if len(parts) == 1:
        return ""
    folder = any(name.startswith(f"{parts[0]}.{parts[1]}.") for name in modules)
    flat = not any(name.count(".") >= 2 for name in modules if name.startswith(f"{parts[0]}."))
    return parts[1] if folder or flat else "(root)"


def rooms(package: str, graph: nx.DiGraph, modules: dict[str, Path]) -> dict[str, Any]:
    """Return rooms, floors and arrows of a package."""
    hall = nx.DiGraph()
    for module in modules:
        if module.startswith(f"{package}.") and (room := room_of(module, modules)):
            hall.add_node(room)
    for one, other in graph.edges:
        if one.split(".")[0] == other.split(".")[0] == package:
            ends = room_of(one, modules), room_of(other, modules)
            if all(ends) and ends[0] != ends[1]:
                hall.add_edge(*ends)
    stacked = nx.condensation(hall)
    cycles = [sorted(part) for part in nx.strongly_connected_components(hall) if len(part) > 1]
    return {
        "rooms": len(hall),
        "floors": nx.dag_longest_path_length(stacked) + 1 if len(hall) else 0,
        "arrows": hall.number_of_edges(),
        "cycles": cycles,
    }


@cache
def code_lines(path: Path) -> list[tuple[int, str]]:
    """Return number and text of the lines that are code: no blanks, docstrings, comments."""
    quiet = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            quiet.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(path.read_text().splitlines(), start=1)
    return [
        (i, s.strip())
        for i, s in lines
        if s.strip() and not s.strip().startswith("#") and i not in quiet
    ]


def repeated(modules: dict[str, Path]) -> float:
    """Return the share of code lines that lie in a window of six that occurs twice."""
    windows: Counter[bytes] = Counter()
    places: list[tuple[str, int, bytes]] = []
    total = 0
    for name, path in modules.items():
        lines = [s for _, s in code_lines(path) if not s.startswith(("from ", "import "))]
        total += len(lines)
        for i in range(len(lines) - WINDOW + 1):
            digest = hashlib.sha256("\n".join(lines[i : i + WINDOW]).encode()).digest()
            windows[digest] += 1
            places.append((name, i, digest))
    again = {(n, i + k) for n, i, d in places if windows[d] > 1 for k in range(WINDOW)}
    return len(again) / max(1, total)


def is_boilerplate(node: ast.FunctionDef) -> bool:
    """Return whether a function only sets up, checks settings or passes a value on."""
    if node.name in ("__init__", "__post_init__"):
        return True
    body = [
        s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
    ]
    decorated = any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)
    return decorated and len(body) == 1 and isinstance(body[0], ast.Return)


def method_share(path: Path) -> float:
    """Return the share of a strategy file's code that is its method."""
    numbers, method = [i for i, _ in code_lines(path)], set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef) and not is_boilerplate(node):
            method.update(range(node.lineno, (node.end_lineno or 0) + 1))
    kept = [i for i in numbers if i in method]
    lines = [s for _, s in code_lines(path)]
    imports = sum(s.startswith(("from ", "import ")) for s in lines)
    return len(kept) / max(1, len(numbers) - imports)


def measured(root: Path) -> dict[str, Any]:
    """Return everything that is measured of the house."""
    modules = sources(root)
    graph = module_graph(modules)
    texts = {name: path.read_text() for name, path in modules.items()}
    sizes = sorted(len(text.splitlines()) for text in texts.values())
    functions = [
        (node.end_lineno or 0) - node.lineno + 1
        for path in modules.values()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    upward = [
        f"{a} -> {b}"
        for a, b in graph.edges
        if PACKAGES[a.split(".")[0]] <= PACKAGES[b.split(".")[0]]
        and a.split(".")[0] != b.split(".")[0]
    ]
    cycles = [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1]
    halls = {package: rooms(package, graph, modules) for package in PACKAGES}
    strategy = {p.stem: p for n, p in modules.items() if n.startswith("strategies")}
    return {
        "files": len(modules),
        "lines": sum(sizes),
        "median_lines": statistics.median(sizes),
        "p95_lines": sizes[int(0.95 * (len(sizes) - 1))],
        "longest": sizes[-1],
        "functions": len(functions),
        "functions_over_40": sum(length > LONG for length in functions),
        "repeated_share": repeated(modules),
        "import_cycles": cycles,
        "upward_imports": upward,
        "room_cycles": [cycle for found in halls.values() for cycle in found["cycles"]],
        "packages": halls,
        "method_share": {name: method_share(strategy[name]) for name in METHODS},
    }


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    told = measured(Path(__file__).parents[1])
    if parser.parse_args().json:
        print(json.dumps(told))
        return
    shares = told.pop("method_share")
    packages = told.pop("packages")
    for name, value in told.items():
        print(f"{name:20} {value:.4f}" if isinstance(value, float) else f"{name:20} {value}")
    for package, found in packages.items():
        print(f"{package:20} {found}")
    for name, share in sorted(shares.items(), key=lambda pair: pair[1]):
        print(f"method of {name:10} {share:.0%}")


if __name__ == "__main__":
    main()

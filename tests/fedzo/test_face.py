"""What `import fedzo` offers is there, is told to editors, and is imported when it is used."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fedzo

STUB = Path(fedzo.__file__).with_suffix(".pyi")


@pytest.mark.parametrize("name", fedzo.FACE)
def test_it_is_there_with_words_about_it(name: str) -> None:
    offered = getattr(fedzo, name)
    assert offered.__name__ == name
    assert inspect.getdoc(offered)
    assert name in dir(fedzo)


def test_editors_are_told_the_same() -> None:
    tree = ast.parse(STUB.read_text())
    told = {
        alias.asname: statement.module
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert told == fedzo.FACE


def test_importing_it_imports_nothing_heavy_and_keeps_no_name_of_old() -> None:
    code = "import fedzo, sys; print({'torch', 'numpy', 'flwr', 'scenarios.runs'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    with pytest.raises(AttributeError, match="module 'fedzo' has no attribute 'minimise'"):
        fedzo.minimise  # noqa: B018


@pytest.mark.more
@pytest.mark.parametrize("name", ["federate", "simulate", "attack", "minimize", "ZerothOrder"])
def test_who_imports_it_first_moves_no_global_generator(name: str) -> None:
    code = (
        "import fedzo, random, numpy, torch\n"
        "def told():\n"
        "    known = numpy.random.get_state()[1].tolist()\n"
        "    return random.getstate(), known, torch.get_rng_state().tolist()\n"
        f"before = told(); fedzo.{name}; assert told() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

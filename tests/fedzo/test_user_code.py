"""A user's file loads like a script, wherever it lies and whatever it is called."""

import dataclasses
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from own_files import STILL

import fedzo
from fedzo.errors import ConfigError
from fedzo.user_code import is_reference, load_kept, load_object, reference_of


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] not in ("fedzo", "clients", "strategies", "scenarios"):
            del sys.modules[name]
    sys.path[:] = path


def load(folder: Path, text: str, name: str = "mine", **neighbors: str) -> Any:
    folder.mkdir(exist_ok=True)
    for neighbor, content in neighbors.items():
        (folder / f"{neighbor}.py").write_text(content)
    file = folder / f"{name}.py"
    file.write_text(text)
    return load_object(f"{file}:make", what="it")


GOAL = """from __future__ import annotations
from dataclasses import dataclass


@dataclass
class Goal:
    shift: float


def make(client):
    return Goal(client)
"""


def test_a_file_may_hold_dataclasses_that_can_be_pickled(tmp_path: Path) -> None:
    goal = load(tmp_path, GOAL)(3)
    assert dataclasses.asdict(pickle.loads(pickle.dumps(goal))) == {"shift": 3}


def test_a_file_finds_its_neighbors_at_once_and_later(tmp_path: Path) -> None:
    text = "import near\n\ndef make(c):\n    from later import two\n    return near.one + two\n"
    make = load(tmp_path, text, near="from deeper import one", deeper="one = 1", later="two = 2")
    assert make(0) == 3


def test_files_and_neighbors_of_two_folders_may_have_one_name(tmp_path: Path) -> None:
    text = "from near import number\n\ndef make(c):\n    return number\n"
    one = load(tmp_path / "a", text, near="number = 1")
    two = load(tmp_path / "b", text, near="number = 2")
    again = load(tmp_path / "a", text, near="number = 1")
    assert (one(0), two(0), again(0)) == (1, 2, 1)


@pytest.mark.parametrize("name", ["random", "strategies", "numpy", "json", "__main__", "a-b"])
def test_a_file_may_be_called_like_a_module_and_stands_in_for_none(
    tmp_path: Path, name: str
) -> None:
    before = sys.modules.get(name)
    assert load(tmp_path, GOAL, name)(1).shift == 1
    assert sys.modules.get(name) is before


@pytest.mark.parametrize("name", ["random", "strategies", "flwr", "queue", "wave"])
def test_a_neighbor_called_like_a_module_is_refused_where_it_is_imported(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match=f"imports {name}, which lies beside it, but another"):
        load(tmp_path, f"import {name}\n\ndef make(c):\n    return c\n", **{name: ""})
    assert load(tmp_path, "def make(c):\n    return c\n")(4) == 4


def test_what_is_for_the_command_line_does_not_run(tmp_path: Path) -> None:
    text = "def make(c):\n    return c\n\nif __name__ == '__main__':\n    raise ValueError\n"
    assert load(tmp_path, text)(2) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def make(:\n", r"SyntaxError: .*\(mine\.py, line 1\)"),
        ("a = 1\n\nb = a / 0\n", r"ZeroDivisionError: division by zero \(mine.py, line 3\)"),
        ("import sys\nsys.exit(4)\n", r"called exit\(4\) \(mine.py, line 2\)"),
        ("import nowhere_to_be_found\n", r"No module named 'nowhere_to_be_found'"),
        ("def other(c):\n    return c\n", r"has no 'make'; it has other"),
    ],
)
def test_a_file_that_does_not_load_says_where(tmp_path: Path, text: str, said: str) -> None:
    before = sys.modules.pop("mine", None)
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, text)
    assert "mine" not in sys.modules or "other" in text
    if before is not None:
        sys.modules["mine"] = before


def test_a_module_of_the_working_folder_loads_and_one_that_raises_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near_module.py").write_text("def make(c):\n    return c\n")
    (tmp_path / "bad_module.py").write_text("raise SystemExit(1)\n")
    assert load_object("near_module:make", what="it")(7) == 7
    with pytest.raises(ConfigError, match=r"called exit\(1\)"):
        load_object("bad_module:make", what="it")


SCRIPT = """
from dataclasses import dataclass
from fedzo.user_code import is_reference, load_object, reference_of

@dataclass
class Mine:
    step: float = 0.1

if __name__ == "__main__":
    name = reference_of(Mine)
    assert is_reference(name), name
    assert load_object(name, what="it") is Mine
    print(name)
"""


def test_a_script_names_what_it_holds_and_does_not_run_twice(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("script.py:Mine\n", "")


OWN = f"""{STILL}
from fedzo import CallableObjective

def middle(vectors):
    return vectors.median(dim=0).values

def sphere(client):
    return CallableObjective(function=lambda x: float(x @ x), dim=2)
"""
IMPORTING = """
import sys
import fedzo
from fedzo.user_code import reference_of
sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "named before":
    fedzo.federate("own.py:sphere", num_clients=2, num_rounds=1, strategy="own.py:Still")
import own
for seed in range(2):
    fedzo.federate(own.sphere, num_clients=2, num_rounds=1, strategy=own.Still, seed=seed)
    fedzo.federate("own.py:sphere", num_clients=2, num_rounds=1, strategy="own.py:Still")
    for aggregator in (own.middle, "own.py:middle"):
        settings = {"strategy.aggregator": aggregator, "strategy.num_byzantine": 1}
        fedzo.federate(own.sphere, num_clients=5, num_rounds=1, settings=settings)
print(len(own.runs), reference_of(own.Still), reference_of(own.middle))
"""


@pytest.mark.more
@pytest.mark.parametrize(("when", "runs"), [("named before", 5), ("imported first", 0)])
def test_what_a_script_imported_is_used_again_and_again(
    when: str, runs: int, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "script.py").write_text(IMPORTING)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "script.py", str(tmp_path), when],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == f"{runs} own.py:Still own.py:middle\n"


def test_a_reference_leads_back_to_what_it_names(tmp_path: Path) -> None:
    make = load(tmp_path, GOAL)
    assert reference_of(make) == f"{tmp_path}/mine.py:make"
    assert reference_of(dataclasses.dataclass) == "dataclasses:dataclass"
    with pytest.raises(ConfigError, match="has no name by which it can be found again"):
        reference_of(lambda: None)


def test_what_is_kept_is_loaded_anew_when_a_neighbor_changes(tmp_path: Path) -> None:
    text = "from near import one\n\ndef make(c):\n    return one\n"
    load(tmp_path, text, near="one = 1")
    name = f"{tmp_path}/mine.py:make"
    first = load_kept(name, what="it")
    assert load_kept(name, what="it") is first
    (tmp_path / "near.py").write_text("one = 1  # the same, said in other words\n")
    assert load_kept(name, what="it") is not first
    (tmp_path / "near.py").write_text("one = 2\n\ndef two(c):\n    return 2\n")
    assert load_kept(name, what="it")(0) == 2
    assert load_kept(f"{tmp_path}/near.py:two", what="it")(0) == 2


def test_a_script_that_edits_what_it_imported_runs_the_text_of_now(tmp_path: Path) -> None:
    script = (
        "import mine\nfrom pathlib import Path\nfrom fedzo.user_code import load_kept\n"
        "Path('mine.py').write_text('def make(c):\\n    return 2\\n')\n"
        "print(mine.make(0), load_kept('mine.py:make', what='it')(0), mine.make(0))\n"
    )
    (tmp_path / "mine.py").write_text("def make(c):\n    return 1\n")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("1 2 1\n", "")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("mine.py:Mine", True), ("/a b/mine.py:Mine", True), ("package.module:name", True),
        ("fedzo", False), ("mine.py", False), ("http://127.0.0.1:8000", False), ("a b:c", False),
    ],
)  # fmt: skip
def test_references_are_told_from_other_texts(text: str, is_one: bool) -> None:
    assert is_reference(text) is is_one


def test_a_file_keeps_its_name_where_no_script_runs(tmp_path: Path) -> None:
    """From a notebook or stdin the first place to look is "", the folder that one is in."""
    (tmp_path / "bowl.py").write_text("def make(client): return client\n")
    code = (
        "import sys; from fedzo.user_code import load_object;"
        "assert sys.path[0] == '';"
        "print(load_object('bowl.py:make', what='it').__module__)"
    )
    source = str(Path(fedzo.__file__).parents[1])
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert told.stdout.strip() == "bowl"

"""A run says which sources made it, and on which machine."""

import platform
import subprocess
from pathlib import Path

from scenarios.runs.environment import commit_of, note_environment, read_environment


def git(place: Path, *arguments: str) -> str:
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    done = subprocess.run(
        ["git", "-C", str(place), *who, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_checkout_has_a_commit_and_says_when_it_was_changed(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    (tmp_path / "notes.txt").write_text("one\n")
    assert commit_of(package) is None, "no checkout"
    commit_of.cache_clear()
    git(tmp_path, "init", "-q")
    assert commit_of(package) is None, "what git does not know is none of its commits"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit_of.cache_clear()
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(package) == head
    (tmp_path / "notes.txt").write_text("two\n")
    commit_of.cache_clear()
    assert commit_of(package) == head, "no source"
    (package / "__init__.py").write_text("x = 2\n")
    commit_of.cache_clear()
    assert commit_of(package) == f"{head}+"


def test_every_beginning_is_an_entry(tmp_path: Path) -> None:
    note_environment(tmp_path)
    note_environment(tmp_path)
    first, second = read_environment(tmp_path)
    assert first["host"] == second["host"] == platform.node()
    assert set(first) == set(second) >= {"begun", "fedzo", "commit", "python", "torch", "system"}

"""What the README says runs, runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SCRIPTS = re.findall(r"```python\n(.*?)```", README, flags=re.S)
COMMANDS = [
    line.removeprefix(".venv/bin/fedzo ").strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.S)
    for line in block.splitlines()
    if line.startswith(".venv/bin/fedzo ")
]


def test_the_readme_has_what_is_tested_here() -> None:
    assert len(SCRIPTS) == 2
    assert len(COMMANDS) == 14
    assert "make demo" in README
    assert "make test" in README


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SCRIPTS)))
def test_its_scripts_run(number: int, tmp_path: Path) -> None:
    optimizes = "\nassert result.final_value < 0.2, result.final_value\n" if number == 0 else ""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPTS[number] + optimizes],
        capture_output=True, text=True, cwd=tmp_path, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "queries" in done.stdout


@pytest.mark.slow
def test_its_commands_run_one_after_the_other(tmp_path: Path) -> None:
    for command in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "scenarios.cli", *shlex.split(command)],
            capture_output=True, text=True, cwd=tmp_path, timeout=600, check=False,
            env={**os.environ, "COLUMNS": "120"},
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "runs" / "rounds.png").exists()


@pytest.mark.source_tree
def test_its_links_lead_somewhere() -> None:
    for page in (
        "README.md",
        "CONTRIBUTING.md",
        "docs/design.md",
        "docs/attacks.md",
        "docs/fzoos.md",
        "docs/results/attacks.md",
        "docs/results/engine.md",
        "docs/results/fzoos.md",
    ):
        text = (ROOT / page).read_text()
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), (page, target)

"""Every block of docs/**/*.md runs, and prints what is shown below it, or NOT_RUN says why not.

A page is one test, in one folder and one namespace, from its first block to its last. A new page is
found by itself. A page NAME.md with a tests/test_NAME_page.py is left to that.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest
from document_blocks import all_blocks, blocks, hidden
from document_pages import run_page

ROOT = Path(__file__).parent.parent
HOURS = "measures for minutes to hours what the page's tables say"
MACHINES = "is typed on several machines, which have names and certificates"
TRIAL = "starts a SuperLink, SuperNodes and servers for a minute: test_deploy has such trials"
NOT_RUN = {
    ("docs/attacks.md", "fedzo attack http:"): "needs a server: examples/attack_http.py is run",
    ("docs/attacks.md", 'fedzo attack "command:'): "stands for a program of the reader's",
    (
        "docs/attacks.md",
        "fedzo attack model.onnx",
    ): "a file of hers: examples/attack_onnx.py is run",
    ("docs/attacks.md", "fedzo attack my_model.py:model --set victim.data=photos"): (
        "needs a folder of photographs: test_pictures has small ones"
    ),
    (
        "docs/attacks.md",
        "fedzo run attack --strategy square",
    ): "asks ten networks for minutes: test_networks_of_photographs_are_attacked_together",
    ("docs/attacks.md", "fedzo defend mnist"): "trains for minutes: test_defense",
    ("docs/deployment.md", "fedzo deploy"): TRIAL,
    ("docs/deployment.md", "openssl"): MACHINES,
    ("docs/deployment.md", "printf"): MACHINES,
    ("docs/deployment.md", "ssh-keygen"): MACHINES,
    ("docs/deployment.md", "flwr"): MACHINES,
    **{
        ("docs/examples/own_node/README.md", start): TRIAL
        for start in ("cd ", "PATH=", "python plant.py", "fedzo deploy", "kill ")
    },
    (
        "docs/results/finetune.md",
        "fedzo run finetune --strategy seed_scalar --set scenario.task=digits_transformer",
    ): HOURS,
    ("docs/privacy.md", "fedzo audit diff2 --trials"): "ends with status 1, as it must: test_audit",
    ("docs/privacy.md", "fedzo run regression --strategy dp_gd --rounds 2000"): (
        "needs ggplot2's table of diamonds: docs/own_model.md runs the same on a small table"
    ),
    ("docs/robustness.md", "fedzo compare classification"): "24 runs of a network take minutes",
    **{
        ("docs/results/attacks.md", start): HOURS
        for start in ("python benchmarks", "fedzo attack", "fedzo compare")
    },
    ("docs/results/diff2.md", "python benchmarks"): HOURS,
    ("docs/results/fedamd.md", "python benchmarks"): HOURS,
    ("docs/results/robustness.md", "fedzo compare"): HOURS,
    ("docs/runs.md", "fedzo run quadratic --strategy fedzo --log mlflow"): (
        "needs mlflow and wandb, which `make` does not install: test_loggers"
    ),
}
"""Page, and how a block begins that is not run -> why."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def left_out(page: Path) -> tuple[str, ...]:
    """Return how the blocks of a page begin that are not run."""
    return tuple(start for where, start in NOT_RUN if where == name(page))


PAGES = sorted((ROOT / "docs").glob("**/*.md"))
HERE = [p for p in PAGES if not (ROOT / "tests" / f"test_{p.stem}_page.py").exists()]
RUN = [p for p in HERE if any(not b.code.startswith(left_out(p)) for b in blocks(p.read_text()))]


@pytest.mark.source_tree
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_command_hides_from_the_tests(page: Path) -> None:
    assert not [*hidden(page.read_text())], "give it a block of its language: console, bash, python"


@pytest.mark.source_tree
@pytest.mark.parametrize("page", HERE, ids=name)
def test_commands_of_other_programs_say_why_they_are_not_run(page: Path) -> None:
    others = [b.code for b in all_blocks(page.read_text()) if b.is_foreign]
    assert [code for code in others if not code.startswith(left_out(page))] == [], (
        "say in NOT_RUN why nobody runs it"
    )


@pytest.mark.source_tree
@pytest.mark.parametrize(("where", "start"), NOT_RUN)
def test_what_is_not_run_is_still_there(where: str, start: str) -> None:
    assert any(b.code.startswith(start) for b in all_blocks((ROOT / where).read_text()))


LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_to_what_the_site_has(page: Path) -> None:
    """`mkdocs build --strict` looks at pages alone: a link to a folder, or out of docs, is dead."""
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            found = (page.parent / target).resolve()
            assert found.is_file(), target
            assert found.is_relative_to(ROOT / "docs"), target


@pytest.mark.slow
@pytest.mark.source_tree
@pytest.mark.parametrize("page", RUN, ids=name)
def test_a_page_prints_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    if page.name == "README.md":  # of an example, whose files lie beside it
        shutil.copytree(page.parent, tmp_path, dirs_exist_ok=True)
    before = set(sys.modules)
    run_page(page, tmp_path, left_out(page))
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[module]


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("```console\n$ fedzo list\nnothing\n```\n", "nothing"),
        ("```bash\nfedzo run nowhere\n```\n", "nowhere"),
        ("```python\nprint(1)\n```\n\n```text\n9\n```\n", "9"),
        ("```python\nprint(1)\n```\n", "1"),
        (
            '```python title="one.py"\nx = 1\n```\n'
            '```python\nimport one\nassert one.x > 1, "one"\n```\n',
            "one",
        ),
    ],
)
def test_a_page_that_prints_something_else_fails(
    page: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(AssertionError, match=told):
        run_page(tmp_path / "page.md", tmp_path)


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("    fedzo list\n", ["    fedzo list"]),
        ("```\nfedzo list\n```\n", ["fedzo list"]),
        ("```zsh\nls\n```\n", ["```zsh"]),
        ("1. So:\n\n   ```bash\n   fedzo list\n   ```\n", ["   ```bash", "   ```"]),
        ("```\n  rooms/   a tree\n```\n\nfedzo minimizes.\n", []),
    ],
)
def test_commands_that_hide_are_found(page: str, found: list[str]) -> None:
    assert [*hidden(page)] == found


def test_commands_go_as_far_as_their_quotes_and_backslashes() -> None:
    page = "```bash\n# don't\nflwr run . 'a\n  b' \\\n  --stream   # why\nfedzo list\n```\n"
    assert [b.code for b in all_blocks(page)] == ["flwr run . 'a   b'    --stream", "fedzo list"]
    assert [b.is_foreign for b in all_blocks(page)] == [True, False]

"""What README says runs, runs, and prints what it shows; pages are as long as they should be."""

import importlib.util
import re
from pathlib import Path

import pytest
from document_blocks import Block, blocks, check, run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TOUR = (ROOT / "docs" / "tour.md").read_text()
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("**/*.md")]


def test_the_readme_is_short_and_has_what_is_tested_here() -> None:
    assert len(README.split()) <= 700
    found = [*blocks(README)]
    assert sum(block.shown is not None for block in found) == len(found) >= 2
    assert "make demo" in README
    assert "make test" in README
    assert len([*blocks(TOUR)]) == 16


@pytest.mark.slow
def test_the_readme_prints_what_it_shows(tmp_path: Path) -> None:
    for block in blocks(README):
        printed = run(block, tmp_path)
        assert block.shown is not None
        check(block.shown, printed)


def test_the_quickstart_has_ten_steps_that_show_something() -> None:
    found = [*blocks(QUICKSTART)]
    assert sum(block.shown is not None for block in found) == len(found) - 1 == 11
    assert QUICKSTART.count("\n## ") == 10


def test_concepts_are_one_page_with_one_picture() -> None:
    concepts = (ROOT / "docs" / "concepts.md").read_text()
    assert len(concepts.split()) <= 900
    assert concepts.count("![") == 1


@pytest.mark.source_tree
def test_the_catalogue_is_that_of_the_tables() -> None:
    spec = importlib.util.spec_from_file_location("catalogue", ROOT / "tools" / "catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "run python tools/catalogue.py"


def test_another_number_or_word_is_found() -> None:
    for told, printed in (("F = 0.1", "F = 0.2"), ("a 1", "b 1"), ("a", "a\nb"), ("1 2", "1")):
        with pytest.raises(AssertionError):
            check(told, printed, 1e-3)
    check("gap 2.0441e-07\nseconds 1", "gap  2.0442e-07\n\nseconds 9")


def test_blocks_are_found_with_what_is_shown() -> None:
    text = "```python\nprint(1)\n```\n\n```text\n1\n```\nand\n```console\n$ fedzo list\na\n```\n"
    assert [*blocks(text)] == [
        Block("print(1)\n", "1\n", False),
        Block("fedzo list", "a\n", True),
    ]


@pytest.mark.source_tree
def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page, target)

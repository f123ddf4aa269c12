"""The reference is that of the sources, and the site that is built of it has every public name."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fedzo

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools" / "reference.py"
reference = SimpleNamespace(**(runpy.run_path(str(TOOL)) if TOOL.exists() else {}))
DIRECTIVE = re.compile(r"^::: (\S+)$", flags=re.M)
pytestmark = pytest.mark.source_tree


def test_the_pages_are_those_of_the_docstrings() -> None:
    stored = {path.name: path.read_text() for path in reference.FOLDER.glob("*.md")}
    assert stored == reference.pages(), "run python tools/reference.py"


def test_all_that_fedzo_offers_is_in_it_once() -> None:
    pages = reference.pages()
    assert set(DIRECTIVE.findall(pages["fedzo.md"])) == {
        f"{module}.{name}" for name, module in fedzo.FACE.items()
    }
    named = [name for text in pages.values() for name in DIRECTIVE.findall(text)]
    assert len(named) == len(set(named)) > 90
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert all(f" api/{name}\n" in navigation for name in pages)


def test_what_has_no_docstring_is_refused() -> None:
    assert reference.first_sentence("fedzo.runtime.local.Rule").startswith(
        "A local rule: (question"
    )
    with pytest.raises(KeyError, match=r"fedzo\.runtime\.local\.nothing"):
        reference.first_sentence("fedzo.runtime.local.nothing")


@pytest.mark.slow
def test_the_site_has_every_name_with_its_docstring(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name, text in reference.pages().items():
        site = (tmp_path / "api" / name).with_suffix(".html").read_text()
        for wanted in DIRECTIVE.findall(text):
            assert f'id="{wanted}"' in site, wanted
    optimizer = (tmp_path / "api" / "fedzo.html").read_text()
    assert "A search by asking and telling" in optimizer
    assert not re.search(r"(src|href)=\"https?://[^\"]+\.(js|css)\"", optimizer)
    assert "concepts.svg" in (tmp_path / "concepts.html").read_text()

"""Code and commands in docstrings and documents are code and commands: they parse, flags exist.

A block of a docstring (what is indented by four or more) is code where one of its lines begins as a
statement of Python does: a decorator, a definition, an import, `x = yield from`, or a compound
statement up to its colon. All else are formulas and tables. Lines that are not indented begin with
none of the former.
"""

import ast
import doctest
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.cli.lazy import COMMANDS, imported

ROOT = Path(__file__).parent.parent
PACKAGES = ("fedzo", "strategies", "clients", "scenarios")
SOURCES = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PLAIN = re.compile(r"@\w|(from [\w.]+ )?import \w|(async )?(def|class) \w+[(:]|\w+ = yield from ")
COMPOUND = re.compile(r"(async )?(for|while|with|if|try)\b.*:\s*(#.*)?$")
COMMAND = re.compile(rf"(?:Example: |\$ )?((?:\S+/)?fedzo (?:{'|'.join(COMMANDS)})(?: .*)?)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
source_tree = pytest.mark.source_tree


def is_code(line: str) -> bool:
    return bool(PLAIN.match(line.strip()) or COMPOUND.match(line.strip()))


def docstrings(text: str) -> Iterator[str]:
    """Return the docstrings of a module, without the indentation of what they are of."""
    for node in ast.walk(ast.parse(text)):
        first = node.body[0] if getattr(node, "body", None) and ast_documented(node) else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            told = " " * first.col_offset + str(first.value.value)
            yield textwrap.dedent(told)


def ast_documented(node: ast.AST) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node) is not None


def blocks(docstring: str) -> list[str]:
    """Return what is indented by four or more."""
    found = re.findall(r"(?:^ {4}.*\n?|^ *\n)+", docstring, re.MULTILINE)
    return [textwrap.dedent(block) for block in found if block.strip()]


def code_of(docstring: str) -> Iterator[str]:
    """Return the pieces of code in a docstring."""
    yield from (b for b in blocks(docstring) if any(map(is_code, b.splitlines())))
    yield from (example.source for example in doctest.DocTestParser().get_examples(docstring))


def faults(docstring: str) -> list[str]:
    """Return what is wrong with the code in a docstring."""
    wrong = [line for line in docstring.splitlines() if PLAIN.match(line)]
    for code in code_of(docstring):
        try:
            ast.parse(code)
        except SyntaxError as error:
            wrong.append(f"{error.msg}: {code}")
    return wrong


@pytest.mark.more
@source_tree
def test_code_in_docstrings_parses() -> None:
    texts = [(path, text) for path in SOURCES for text in docstrings(path.read_text())]
    assert sum(1 for _, text in texts for _ in code_of(text)) >= 7
    assert not [(str(path), wrong) for path, text in texts for wrong in faults(text)]


@pytest.mark.parametrize(
    ("docstring", "is_wrong"),
    [
        ("Sum.\n\n    for t = 1..T:  g = grad f(x)      (eq. 8)\n    x <- x - g\n", False),
        ("Walk.\n\n    while not done:\n        ask(x)\n", False),
        ("Walk.\n\n    while not done: ask(x)\n    tell(reply to x)\n    with y:\n", True),
        ("Round.\n\n    heard = yield from ask(x) return heard\n", True),
        ("Round. Write\ndef round(self): return 1\nand no more.", True),
        ("Add.\n\n>>> 1 +\n", True),
        ("Add.\n\n>>> 1 + 1\n2\n", False),
    ],
)
def test_broken_code_is_told_from_formulas(docstring: str, is_wrong: bool) -> None:
    assert bool(faults(docstring)) == is_wrong


@source_tree
def test_python_in_documents_parses() -> None:
    for path in DOCUMENTS:
        for language, code in FENCE.findall(path.read_text()):
            if language == "python":
                ast.parse(code, str(path))


@pytest.mark.more
@source_tree
def test_commands_have_the_flags_that_are_written() -> None:
    known = {name: {o for p in imported(name).params for o in p.opts} for name in COMMANDS}
    lines = [
        line for path in SOURCES for t in docstrings(path.read_text()) for line in t.split("\n")
    ]
    for path in DOCUMENTS:
        for _, code in FENCE.findall(path.read_text()):
            lines += code.replace("\\\n", " ").splitlines()
    found = [match[1] for line in lines if (match := COMMAND.fullmatch(line.strip()))]
    assert len(found) >= 30
    for command in found:
        _, name, *words = shlex.split(command, comments=True)
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= known[name], command

"""Texts such as `clip(radius=2.0) | median`: functions by name, with named options.

Nothing is executed: the text is parsed as a Python expression of names, calls with literal keyword
arguments, and `|`. A name may also be a reference, `mine.py:rule(keep=3)`.
"""

import ast
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import pydantic

from fedzo.config import Scalar, unknown_key
from fedzo.errors import ConfigError
from fedzo.user_code import REFERENCE

_QUOTED_OR_REFERENCE = re.compile(rf"'[^']*'|\"[^\"]*\"|{REFERENCE.pattern}")


@dataclass(frozen=True, slots=True)
class Call:
    """A function by its name, with options."""

    name: str
    function: Callable[..., Any]
    options: Mapping[str, Scalar] = field(default_factory=dict)


def split_calls(text: str) -> list[tuple[str, dict[str, Scalar]]]:
    """Return names and options, from left to right; raises ValueError for any other text."""
    references: list[str] = []

    def short(found: re.Match[str]) -> str:
        if found[0][0] in "'\"":
            return found[0]
        references.append(found[0])
        return f"_reference_{len(references) - 1}"

    try:
        node = ast.parse(_QUOTED_OR_REFERENCE.sub(short, text.strip()), mode="eval").body
    except SyntaxError as error:
        raise ValueError(text) from error
    nodes: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        nodes.insert(0, node.right)
        node = node.left
    whole = {f"_reference_{number}": reference for number, reference in enumerate(references)}
    calls = [_call(part) for part in [node, *nodes]]
    return [(whole.get(name, name), options) for name, options in calls]


def make_call(
    name: str, options: Mapping[str, Scalar], function: Callable[..., Any], given: Collection[str]
) -> Call:
    """Check the options of a function by its signature, those it is `given` elsewhere excepted.

    Raises ConfigError for unknown options and wrong types.
    """
    allowed = [p for p in inspect.signature(function).parameters if p not in given]
    hints = get_type_hints(function)
    checked: dict[str, Scalar] = {}
    for option, value in options.items():
        if option not in allowed:
            raise unknown_key(f"{name}.{option}", [f"{name}.{other}" for other in allowed])
        try:
            checked[option] = pydantic.TypeAdapter(hints.get(option, Scalar)).validate_python(
                value, strict=True
            )
        except pydantic.ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"{name}({option}={value!r}) is not allowed: {reason}") from error
    return Call(name, function, checked)


def parse_call(
    text: str, table: Mapping[str, Callable[..., Any]], *, given: Collection[str], what: str
) -> Call:
    """Return the one call that a text names; raises ConfigError for anything else."""
    try:
        [(name, options)] = split_calls(text)
    except ValueError as error:
        raise ConfigError(
            f"{what}={text!r} is not understood; allowed: {', '.join(table)}, with options as in"
            " name(option=value)"
        ) from error
    if name not in table:
        raise unknown_key(name, table, what=what)
    return make_call(name, options, table[name], given)


def _call(node: ast.expr) -> tuple[str, dict[str, Scalar]]:
    called = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(called.func, ast.Name) or called.args:
        raise ValueError(ast.dump(node))
    options = {}
    for keyword in called.keywords:
        if keyword.arg is None or keyword.arg in options:
            raise ValueError(ast.dump(node))
        options[keyword.arg] = ast.literal_eval(keyword.value)
    return called.func.id, options

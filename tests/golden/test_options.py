"""Every command keeps its arguments and options: their names, order, defaults and help.

`PYTHONPATH=tests python -m golden.test_options` writes options.json anew; say in the commit why.
"""

import json
from pathlib import Path

import pytest
from click import Command

from scenarios.cli.lazy import COMMANDS, imported

OPTIONS = Path(__file__).with_name("options.json")


def said(command: Command) -> dict[str, list[str]]:
    """Return what a command says of its parameters, in their order."""
    return {
        str(each.name): [
            *each.opts,
            *each.secondary_opts,
            f"default {each.default!r}",
            *filter(None, [each.metavar]),
            getattr(each, "help", None) or "",
        ]
        for each in command.params
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_keeps_its_options(name: str) -> None:
    written = json.loads(OPTIONS.read_text())[name]
    found = said(imported(name))
    assert list(found) == list(written)
    assert found == written


if __name__ == "__main__":
    told = {name: said(imported(name)) for name in COMMANDS}
    OPTIONS.write_text(json.dumps(told, indent=1) + "\n")

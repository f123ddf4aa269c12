"""What a script hands to a run by mistake ends in one sentence, before anything is asked.

In a process of its own: under test, annotations are checked before we see the arguments.
"""

import subprocess
import sys

import pytest

SCRIPT = """
import fedzo
from fedzo.objectives.objective import CallableObjective

asked = []

def made(client):
    return CallableObjective(function=lambda x: (asked.append(client), x.sum(-1))[1], dim=2)

def said(call):
    asked.clear()
    try:
        call()
    except fedzo.errors.ConfigError as error:
        print(len(asked), error)

for given in (
    {"settings": ["client.mu=1"]}, {"settings": {1: 2}}, {"callbacks": print},
    {"callbacks": ["a"]}, {"threads": "2"}, {"threads": 0},
):
    said(lambda: fedzo.federate(made, num_clients=2, num_rounds=1, **given))
result = fedzo.federate(made, num_clients=2, num_rounds=1)
said(lambda: result.load_into(3))
"""
TOLD = (
    "must be a dict of dotted names and values",
    "must be a dict of dotted names and values",
    "must be a list of functions",
    "must be a list of functions",
    "threads",
    "threads",
    "module=3 is no torch module",
)


@pytest.mark.more
def test_arguments_of_another_kind_are_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(TOLD), done.stdout
    for line, told in zip(lines, TOLD, strict=True):
        assert line.startswith("0 ")
        assert told in line

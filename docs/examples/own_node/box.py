"""What an operator writes: where her black box is, and how it is asked.

A SuperNode names one of these functions in its --node-config, objective="/path/box.py:over_http";
`scenario remote` tells the server the number of variables and the box. Here client 0 has its plant
on port 9000 and client 1 on port 9001; a real node has one plant and ignores its number.
"""

import sys
from pathlib import Path

from fedzo.objectives.remote import CommandObjective, HttpObjective

DIM, LOWER, UPPER = 6, -1.0, 1.0
PLANT = Path(__file__).with_name("plant.py")


def over_http(client: int) -> HttpObjective:
    """Ask the plant's endpoint: at most 5 s for an answer, five further tries, 64 points each."""
    return HttpObjective(
        url=f"http://127.0.0.1:{9000 + client}/",
        dim=DIM,
        lower=LOWER,
        upper=UPPER,
        timeout_s=5.0,
        retries=5,
        batch=64,
    )


def over_command(client: int) -> CommandObjective:
    """Start the plant's program for every question."""
    return CommandObjective(
        command=[sys.executable, str(PLANT), "--target", str(0.2 + 0.2 * client)],
        dim=DIM,
        lower=LOWER,
        upper=UPPER,
        timeout_s=30.0,
        retries=1,
    )

"""CPU seconds until a command has done its work: what a command costs before it has begun.

Run with `python benchmarks/start.py`. Medians of seven runs of each command, user and system time
of the process, against the limits of the house (issues 20 and 21).
"""

import resource
import statistics
import subprocess
import sys
import tempfile

REPEATS = 7
COMMANDS = {
    "import fedzo": (0.3, ["-c", "import fedzo"]),
    "fedzo --help": (1.0, ["-m", "scenarios.cli", "--help"]),
    "fedzo list": (1.0, ["-m", "scenarios.cli", "list"]),
    "fedzo run quadratic --rounds 1": (
        2.0,
        ["-m", "scenarios.cli", "run", "quadratic", "--rounds", "1"],
    ),
    "import torch": (None, ["-c", "import torch"]),
}


def main() -> None:
    """Print the table."""
    print("| command | CPU seconds | wanted |\n|---|---|---|")
    for name, (limit, words) in COMMANDS.items():
        seconds = statistics.median(_cpu_seconds(words) for _ in range(REPEATS))
        print(f"| `{name}` | {seconds:.2f} | {limit or ''} |")


def _cpu_seconds(words: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as nowhere:
        subprocess.run([sys.executable, *words], check=True, stdout=nowhere, stderr=nowhere)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()

"""`python -m scenarios.cli` is `fedzo`."""

from scenarios.cli.app import main

main()

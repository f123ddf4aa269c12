"""`python -m scenarios.cli` is `fedzo`."""

from scenarios.cli.app import main

if __name__ == "__main__":
    main()

"""The command line."""

from scenarios.cli.app import app, main

__all__ = ["app", "main"]

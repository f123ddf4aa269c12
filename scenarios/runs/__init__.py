"""Runs: an experiment, from its settings to its directory."""

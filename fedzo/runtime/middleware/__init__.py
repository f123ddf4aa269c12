"""Engines around engines: liars, faults, a log of messages."""

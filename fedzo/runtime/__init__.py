"""Engines: what performs the exchanges of a strategy."""

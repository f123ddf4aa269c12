"""Clipped answers."""

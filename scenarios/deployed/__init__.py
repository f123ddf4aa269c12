"""Runs on real Flower nodes."""

"""Peers with models of their own."""

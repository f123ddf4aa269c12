"""Anchors and miners."""

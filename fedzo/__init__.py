"""Vocabulary and maths of fedzo; strategies and clients are thin on top of it."""

from fedzo.moved import lead_from_old_names

__version__ = "0.1.0"

lead_from_old_names()

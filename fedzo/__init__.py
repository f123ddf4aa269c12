"""Vocabulary and maths of fedzo; strategies and clients are thin on top of it."""

__version__ = "0.1.0"

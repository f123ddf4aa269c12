"""Gradient coding: work that is spread so that some of it may be missing."""

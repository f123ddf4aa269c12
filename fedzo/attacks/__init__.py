"""Attacks on models that answer with scores, labels or an order, and nothing else."""

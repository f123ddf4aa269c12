"""Clients behind a Flower grid."""

from fedzo.runtime.flower.engine import FlowerEngine

__all__ = ["FlowerEngine"]

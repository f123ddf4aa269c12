"""Pure rules that turn vectors [n, d] into one [d]."""

from fedzo.aggregation.mean import mean

__all__ = ["mean"]

"""Methods with differential privacy."""

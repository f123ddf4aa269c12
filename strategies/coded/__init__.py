"""Gradient descent on machines that share the data, coded against stragglers."""

"""Gradients made of values: keyed directions, estimates, and modules asked near their parameters.

Import the parts: fedzo.estimation.keys, estimate, in_place.
"""

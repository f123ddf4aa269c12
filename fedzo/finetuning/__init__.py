"""Zeroth order on modules: training a network of any size that nobody differentiates.

A step is always: directions -> values -> coefficients -> x moved along the directions.
"""

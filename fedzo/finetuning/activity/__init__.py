"""Zeroth order by the outputs of layers: noise there, not in the weights, and a learned way back.

Import the parts: optimizer, sites, feedback, layers.
"""

"""Differential privacy: what is clipped, how much noise is added, what has been spent, and a check.

Import the parts: fedzo.privacy.clipping, layers, gaussian, accountant, audit.
"""

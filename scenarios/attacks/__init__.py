"""Attacks on single victims, and defenses of them."""

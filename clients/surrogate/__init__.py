"""Surrogates that stay on the clients."""

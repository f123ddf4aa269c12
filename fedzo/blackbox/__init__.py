"""Minimize one function of your own: ask and tell, or one call."""

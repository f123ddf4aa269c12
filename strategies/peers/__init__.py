"""Methods without a server's model."""

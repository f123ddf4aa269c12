"""Values along directions that all clients share."""

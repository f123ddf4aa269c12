"""Methods on directions that all clients share."""

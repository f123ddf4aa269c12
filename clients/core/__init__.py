"""What local rules share."""

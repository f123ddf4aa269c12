"""Models that are attacked or defended, and where they come from."""

"""Local steps from the server's x."""

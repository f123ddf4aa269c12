"""Vectors in fewer bytes: what is lost of them, and who remembers it."""

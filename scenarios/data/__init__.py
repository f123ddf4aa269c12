"""Where data and users' own files come from."""

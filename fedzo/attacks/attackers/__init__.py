"""Those who attack one image, one a file."""

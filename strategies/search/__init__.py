"""Methods that compare whole proposals."""

"""Methods that average local steps."""

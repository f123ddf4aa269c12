"""What a run leaves behind: histories, checkpoints, files that say what they are, figures."""

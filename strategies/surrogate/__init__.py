"""FZooS and its variants."""

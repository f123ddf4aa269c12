"""Methods of anchors and miners."""

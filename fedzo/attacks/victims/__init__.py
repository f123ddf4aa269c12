"""What is attacked: black boxes that tell scores, labels or an order."""

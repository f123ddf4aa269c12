"""What is optimized, by which clients."""

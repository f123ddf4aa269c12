"""What is optimized: objectives, cohorts of them, and the only way to ask them."""

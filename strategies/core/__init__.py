"""What all strategies share: rounds, the driver that runs them, robust rules, judging."""

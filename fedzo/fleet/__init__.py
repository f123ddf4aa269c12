"""What a federation would take in seconds: devices, links, and who waits for whom."""

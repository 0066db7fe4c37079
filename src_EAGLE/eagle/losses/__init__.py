"""Training losses, one to a file."""

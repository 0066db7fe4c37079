"""The schema of every key, its validation, keys that are retired, and the command line."""

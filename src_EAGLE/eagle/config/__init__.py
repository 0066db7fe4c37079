"""Configuration keys, their validation, retired keys, and the command line."""

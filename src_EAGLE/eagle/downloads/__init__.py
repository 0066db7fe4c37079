"""Fetch datasets and weights: HTTP, Google Drive, archives, and the catalog of files."""

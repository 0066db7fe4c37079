"""Fetching datasets and weights: HTTP, Google Drive, archives, and what can be fetched."""

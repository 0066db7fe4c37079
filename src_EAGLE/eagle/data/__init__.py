"""Datasets, their label mappings, class names and palettes, and the Lightning data module."""

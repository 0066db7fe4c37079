"""Figures drawn from images, labels and metrics."""

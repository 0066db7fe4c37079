"""Figures drawn from arrays: panel grids, confusion matrices, curves, bars."""

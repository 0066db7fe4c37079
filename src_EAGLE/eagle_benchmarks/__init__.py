"""Benchmark EAGLE's training step and evaluation against a naive version of the released algorithm."""

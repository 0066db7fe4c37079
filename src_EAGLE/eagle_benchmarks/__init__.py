"""Measures EAGLE's training step and evaluation beside the published algorithm, which is written out here alone."""

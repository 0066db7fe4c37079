"""Synthetic scenes of photographic textures with exact labels, for training without a download."""

"""Masks for anyone's photographs and videos from a trained segmenter."""

"""Cutting images into crops to train on."""

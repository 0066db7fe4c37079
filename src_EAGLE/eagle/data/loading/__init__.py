"""Views, samplers and the Lightning data module."""

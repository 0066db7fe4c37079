"""From files to batches: views, samplers and the Lightning data module."""

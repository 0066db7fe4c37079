"""Evaluate checkpoints, baselines and sweeps: tables, JSON, figures and the HTML page."""

"""Evaluate checkpoints, baselines and seeds: tables, JSON, figures and the HTML page."""

"""Metrics, dense CRF, and an evaluator that scores the probe maps of any model (method §9)."""

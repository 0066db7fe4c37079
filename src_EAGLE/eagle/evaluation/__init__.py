"""Metrics, dense CRF, and an evaluator that scores the probe maps of any model (docs/method.md §9)."""

"""Metrics, inference, CRF and reports."""

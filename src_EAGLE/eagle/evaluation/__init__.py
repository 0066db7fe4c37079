"""Metrics, dense CRF and the evaluator, which scores any maps and knows no segmenter."""

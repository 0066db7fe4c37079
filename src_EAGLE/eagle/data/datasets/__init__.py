"""The datasets, one to a file, and the catalog that opens them by name."""

"""One module per dataset, and the catalog that opens them by name."""

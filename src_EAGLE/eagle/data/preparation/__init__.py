"""Build datasets from their publishers' archives, in the layouts that ``eagle.data.datasets`` reads."""

"""Image and label files, palettes and class maps; sub-packages for datasets, crops, loading and preparation."""

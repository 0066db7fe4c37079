"""Images, label maps, palettes and class maps; datasets, crops, loading and mosaics in rooms of their own."""

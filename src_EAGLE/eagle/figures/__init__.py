"""Every figure, drawn from arrays: grids, confusion matrices, curves, frequencies."""

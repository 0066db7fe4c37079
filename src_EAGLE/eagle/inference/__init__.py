"""Apply a trained segmenter to photographs, folders and videos of any size, and export it as a graph."""

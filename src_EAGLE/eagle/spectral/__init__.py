"""Affinities, graph Laplacian, eigenvectors and EiCue (paper section 3.2)."""

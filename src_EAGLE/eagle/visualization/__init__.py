"""Draw the eigenvectors, EiCue, k-means of the keys and final clusters of images."""

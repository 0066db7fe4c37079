"""What the method sees in an image: eigenvectors, EiCue, k-means of the keys and final clusters."""

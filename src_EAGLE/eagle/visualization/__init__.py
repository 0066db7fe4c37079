"""What the method sees in an image: eigenvectors, object cues, k-means of the keys and final clusters."""

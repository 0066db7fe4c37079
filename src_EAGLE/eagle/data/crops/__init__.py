"""Cut images into training crops."""

"""A trained segmenter on photographs, folders and videos of any size, and as an exported graph."""

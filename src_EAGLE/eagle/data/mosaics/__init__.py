"""Images with exact labels, composed of textures: something to train on without a download."""
